// A GPT of the store on your page: puts a frame with its chat where this script stands.
// <script src="…/embed.js" data-gpt="emb_…" data-language="en" data-title="Chat" async></script>
(() => {
  for (const script of document.querySelectorAll("script[data-gpt]:not([data-shown])")) {
    const language = ["en", "zh-hans"].includes(script.dataset.language) ? script.dataset.language : "en";
    const frame = document.createElement("iframe");
    frame.src = new URL(`/${language}/chat/embed/${encodeURIComponent(script.dataset.gpt)}/`, script.src).href;
    frame.title = script.dataset.title || "Chat";
    frame.loading = "lazy";
    frame.referrerPolicy = "origin";
    frame.setAttribute("sandbox", "allow-scripts allow-forms allow-popups");
    frame.style.cssText = "display: block; inline-size: 100%; block-size: 480px; border: 0";
    script.dataset.shown = "";
    script.after(frame);
  }
})();
