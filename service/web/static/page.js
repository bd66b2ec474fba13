// Liveness, the slider and the copy buttons. Every page works without this file.
"use strict";

const NEXT_LOOK_MS = 1000;
const parser = new DOMParser();
const slider = document.querySelector("[data-slider]");
const told = document.getElementById("live-told");
const pause = document.getElementById("live-pause");

/* Take the parts of the page at `url` into this one; a part that has the focus is left alone. */
async function take(url) {
  const answer = await fetch(url);
  if (!answer.ok) return;
  const page = parser.parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-part]")) {
    const fresh = page.getElementById(part.id);
    if (fresh && !part.contains(document.activeElement) && fresh.innerHTML !== part.innerHTML) {
      part.replaceChildren(...fresh.childNodes);
    }
  }
  const fresh = page.querySelector("[data-slider]");
  if (slider && fresh) {
    slider.max = fresh.max;
    slider.setAttribute("aria-valuetext", fresh.getAttribute("aria-valuetext"));
    if (document.activeElement !== slider) slider.value = fresh.value;
  }
  showCopyButtons();
  showStep();
}

/* One look at a time, and the newest wish wins. */
let wished = null;
let looking = false;
async function look(url) {
  wished = url;
  if (looking) return;
  looking = true;
  while (wished !== null) {
    const next = wished;
    wished = null;
    await take(next).catch(() => {});
  }
  looking = false;
}

if (slider) {
  slider.addEventListener("input", () => {
    const url = new URL(location.href);
    url.searchParams.set(slider.name, slider.value);
    url.searchParams.delete("at");
    history.replaceState(null, "", url);
    look(url.href);
  });
}

/* Keep the step that is looked at in sight, within its own list. */
function showStep() {
  const step = document.querySelector(".steps [aria-current]");
  if (!step) return;
  const list = step.closest(".scroll");
  list.scrollTop = step.offsetTop - (list.clientHeight - step.offsetHeight) / 2;
}
showStep();

function showCopyButtons() {
  for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
}
showCopyButtons();
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
  button.textContent = "Copied";
});
document.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && event.target.closest("details.menu[open]");
  if (menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

/* Live: the service says how far the views have come, and this page looks again. */
const live = document.body.dataset.live;
let source = null;
let due = null;
function listen() {
  source?.close();
  source = null;
  const paused = sessionStorage.getItem("paused") === "yes";
  pause.textContent = paused ? "Resume" : "Pause";
  if (paused || document.hidden) {
    told.textContent = paused ? "Paused" : "";
    return;
  }
  source = new EventSource(live);
  source.onmessage = (event) => {
    told.textContent = `Live, position ${Number(event.data).toLocaleString("en")}`;
    due ??= setTimeout(() => {
      due = null;
      look(location.href);
    }, NEXT_LOOK_MS);
  };
  source.onerror = () => {
    told.textContent = "Connection lost, trying again";
  };
}
if (live) {
  pause.hidden = false;
  pause.addEventListener("click", () => {
    sessionStorage.setItem("paused", sessionStorage.getItem("paused") === "yes" ? "no" : "yes");
    listen();
  });
  document.addEventListener("visibilitychange", listen);
  listen();
}
