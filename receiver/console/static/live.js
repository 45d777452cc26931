// The live page: cards that follow the calls, and one call that is listened to.

import { toast } from "./console.js";
import { LiveAudio } from "./listen.js";

const LOWEST_DBFS = -60;
const FULL = 18; // the height of the picture of a level
const LONGEST_PAUSE_MS = 10000;

const list = document.getElementById("live-calls");
const template = document.getElementById("live-card");
const dock = document.getElementById("listening");
let audio = null; // what is listened to
let pauseMs = 500;

function socketUrl(path) {
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
}

function follow() {
  const socket = new WebSocket(socketUrl("/live/events"));
  socket.onopen = () => {
    pauseMs = 500;
    document.getElementById("live-broken").hidden = true;
  };
  socket.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.event === "calls") showAll(event);
    else moveAll(event);
  };
  socket.onclose = ({ code }) => {
    if (code === 1008) {
      location.reload(); // which leads to the sign-in page
      return;
    }
    document.getElementById("live-broken").hidden = false;
    setTimeout(follow, pauseMs);
    pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
  };
}

const cards = () => new Map([...list.children].map((card) => [card.dataset.id, card]));

function showAll(page) {
  document.getElementById("live-heading").textContent = page.heading;
  document.getElementById("live-summary").textContent = page.summary;
  showProblems(page.problems);
  showNotCome(page.not_come);
  const known = cards();
  const shown = new Set(page.calls.map((call) => call.id));
  for (const [id, card] of known) {
    if (shown.has(id)) continue;
    if (card.contains(document.activeElement)) document.getElementById("main").focus();
    card.remove();
    if (audio?.id === id) audio.ending = true;
  }
  page.calls.forEach((call, place) => {
    const card = known.get(call.id) ?? newCard(call);
    // One that is in its place is not moved: it would lose the focus.
    if (list.children[place] !== card) list.insertBefore(card, list.children[place] ?? null);
    move(call.id, call);
  });
  list.hidden = page.calls.length === 0;
  document.getElementById("live-empty").hidden = page.calls.length > 0;
}

function moveAll(event) {
  document.getElementById("live-summary").textContent = event.summary;
  for (const [id, call] of Object.entries(event.calls)) move(id, call);
}

function showProblems(problems) {
  const lines = problems.map((problem) => {
    const line = document.createElement("p");
    line.className = "note bad";
    const head = document.createElement("strong");
    head.textContent = "A receiver cannot be seen.";
    line.append(head, ` ${problem.receiver} ${problem.text}. It is tried again; what it records is not touched by this.`);
    return line;
  });
  document.getElementById("live-problems").replaceChildren(...lines);
}

function showNotCome(found) {
  const lines = found.map(({ head, text }) => {
    const line = document.createElement("p");
    line.className = "note bad";
    line.setAttribute("role", "alert");
    const strong = document.createElement("strong");
    strong.textContent = head;
    line.append(strong, ` ${text}`);
    return line;
  });
  document.getElementById("live-not-come").replaceChildren(...lines);
}

function newCard(call) {
  const card = template.content.firstElementChild.cloneNode(true);
  card.dataset.id = call.id;
  for (const part of ["pause", "resume"]) {
    const form = card.querySelector(`[data-${part}]`);
    if (form) form.action = `/live/${encodeURIComponent(call.id)}/${part}`;
  }
  card.querySelector("[data-chips]").replaceChildren(...call.chips.map(chip));
  const shown = new Set(call.sides.map((side) => side.track));
  for (const side of card.querySelectorAll("[data-side]")) {
    if (!shown.has(side.dataset.side)) side.remove();
  }
  for (const [track, levels] of Object.entries(call.levels)) {
    for (const level of levels) push(card, track, level);
  }
  const button = card.querySelector("[data-listen]");
  button?.setAttribute("aria-label", `Listen to ${call.title}`);
  prepare(card);
  return card;
}

function chip({ name, value, url }) {
  const link = document.createElement("a");
  link.className = "chip";
  link.href = url;
  const [first, second] = [document.createElement("span"), document.createElement("span")];
  first.textContent = name;
  second.className = "clip";
  second.textContent = value;
  link.append(first, " ", second);
  return link;
}

function move(id, call) {
  const card = list.querySelector(`[data-id="${CSS.escape(id)}"]`);
  if (!card) return;
  for (const field of card.querySelectorAll("[data-field]")) {
    const text = call[field.dataset.field];
    if (text !== undefined && field.textContent !== text) field.textContent = text;
  }
  card.classList.toggle("bad", call.tone === "bad");
  for (const [part, hidden] of [["pause", call.is_paused], ["resume", !call.is_paused]]) {
    const form = card.querySelector(`[data-${part}]`);
    if (form) form.hidden = hidden;
  }
  for (const [track, level] of Object.entries(call.levels)) {
    if (!Array.isArray(level)) push(card, track, level);
  }
}

/** Put one more level behind the others: the bars move to the left. */
function push(card, track, level) {
  const bars = card.querySelectorAll(`[data-track="${track}"] rect`);
  for (let place = 0; place < bars.length; place += 1) {
    const next = bars[place + 1];
    const height = next ? Number(next.getAttribute("height")) : heightOf(level);
    bars[place].setAttribute("height", height);
    bars[place].setAttribute("y", FULL - height);
  }
}

function heightOf(level) {
  if (level === null) return 2;
  return Math.max(2, Math.min(FULL, (level - LOWEST_DBFS) * 0.36));
}

// Listening.

/** Give an order without leaving the page: whoever listens goes on listening. */
function prepareOrders(card) {
  for (const form of card.querySelectorAll("[data-pause], [data-resume]")) {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const button = form.querySelector("button");
      button.disabled = true;
      try {
        const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
        if (!answer.ok) toast("It was not done: the receiver did not take the order.");
      } catch {
        toast("It was not done: the console cannot be reached.");
      }
      button.disabled = false;
    });
  }
}

function prepare(card) {
  prepareOrders(card);
  const button = card.querySelector("[data-listen]");
  if (!button) return;
  button.hidden = false;
  button.addEventListener("click", () => {
    if (audio?.id === card.dataset.id) stop();
    else listen(card);
  });
}

async function listen(card) {
  stop();
  const title = card.querySelector("h2").textContent;
  const started = new LiveAudio(card.dataset.id, socketUrl(`/live/audio/${encodeURIComponent(card.dataset.id)}`), {
    worklet: new URL("jitter.js", import.meta.url),
    onText: (text) => audio === started && say(text),
    onEnd: (text) => {
      if (audio !== started) return;
      stop();
      toast(text);
    },
  });
  audio = started;
  mark(card.dataset.id);
  dock.hidden = false;
  document.body.classList.add("has-dock");
  document.getElementById("listening-title").textContent = title;
  say("connecting");
  setSound();
  try {
    await started.start();
  } catch (error) {
    if (audio === started) {
      stop();
      toast(`The browser cannot play it: ${error.message}`);
    }
  }
}

function stop() {
  if (!audio) return;
  audio.stop();
  audio = null;
  mark("");
  dock.hidden = true;
  document.body.classList.remove("has-dock");
}

function say(text) {
  document.getElementById("listening-text").textContent = text;
}

function mark(id) {
  for (const [key, card] of cards()) {
    const button = card.querySelector("[data-listen]");
    if (!button) continue;
    button.textContent = key === id ? "Stop" : "Listen";
    button.setAttribute("aria-label", `${button.textContent}${key === id ? " listening to" : " to"} ${card.querySelector("h2").textContent}`);
  }
}

function setSound() {
  const volume = Number(document.getElementById("listening-volume").value);
  const isMuted = (track) => dock.querySelector(`[data-mute="${track}"]`).ariaPressed === "true";
  audio?.setSound(volume, isMuted("inbound"), isMuted("outbound"));
}

if (dock) {
  for (const button of dock.querySelectorAll("[data-mute]")) {
    button.addEventListener("click", () => {
      button.ariaPressed = button.ariaPressed === "true" ? "false" : "true";
      setSound();
    });
  }
  document.getElementById("listening-volume").addEventListener("input", setSound);
  document.getElementById("listening-stop").addEventListener("click", stop);
}
addEventListener("pagehide", stop);
for (const card of list.children) prepare(card);
follow();
