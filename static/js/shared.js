// A shared conversation: code blocks with a button that copies them.
import { dress } from "./answer.js";

for (const answer of document.querySelectorAll("[data-said]")) dress(answer);
