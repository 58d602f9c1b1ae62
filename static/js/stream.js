// Talking with the store: acts are POSTs with a CSRF token that is fetched at the first one; answers are read as event streams.

export class Refusal extends Error {
  // error: {code, message, param, way_out: {label, url}} as the store says it, or only a message.
  constructor(error) {
    super(error.message);
    this.error = error;
  }
}

let token = null;

async function csrf(address, renew) {
  if (token === null || renew) token = (await (await fetch(address, { headers: { accept: "application/json" } })).json()).token;
  return token;
}

// POSTs the fields; resolves to the JSON of the answer, rejects with Refusal. `offline` is said when nothing comes back.
export async function post(url, fields, { csrfUrl, offline }) {
  const send = async (renew) => {
    const headers = { accept: "application/json", "x-csrftoken": await csrf(csrfUrl, renew) };
    return fetch(url, { method: "POST", headers, body: new URLSearchParams(fields) });
  };
  try {
    let response = await send(false);
    const said = () => response.headers.get("content-type")?.startsWith("application/json");
    if (response.status === 403 && !said()) response = await send(true); // the token was of an earlier session
    if (!said()) throw new Refusal({ message: offline });
    const value = await response.json();
    if (!response.ok) throw new Refusal(value.error);
    return value;
  } catch (error) {
    throw error instanceof Refusal ? error : new Refusal({ message: offline });
  }
}

// Reads an event stream to its end. The browser reconnects by itself and goes on after the last event it saw.
export function follow(url, { started, delta, finished, lost }) {
  const source = new EventSource(url);
  const on = (name, hear) => source.addEventListener(name, (event) => hear(JSON.parse(event.data)));
  on("started", started);
  on("delta", delta);
  on("finished", (event) => {
    source.close();
    finished(event);
  });
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) lost();
  });
  return () => source.close();
}
