// Send and stop share a place: while an answer is under way, stop stands there. The focus stays in that place, so that who
// pressed the one by key can press the other.
export function sendOrStop(send, stop) {
  for (const button of [send, stop]) {
    button.addEventListener("keydown", (event) => {
      if (event.repeat && [" ", "Enter"].includes(event.key)) event.preventDefault(); // a key held long is one press
    });
  }
  return (isUnderWay) => {
    const had = [send, stop].includes(document.activeElement);
    send.hidden = isUnderWay;
    stop.hidden = !isUnderWay;
    stop.removeAttribute("aria-disabled");
    if (had) (isUnderWay ? stop : send).focus();
  };
}

// Whether it was not pressed before; from then on it can't be. Were it disabled, it would lose the focus.
export function pressOnce(stop) {
  const isFirst = !stop.hasAttribute("aria-disabled");
  stop.setAttribute("aria-disabled", "true");
  return isFirst;
}
