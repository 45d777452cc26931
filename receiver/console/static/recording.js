// The page of one recording: waveforms, time line, player, keys.

import { clockText, copy, isPressable, isTyping, reportHeard, toast } from "./console.js";
import { drawWave, parsePeaks, silences } from "./peaks.js";
import { Player } from "./player.js";
import { WavFile } from "./wav.js";

const STEP_SECONDS = 5;
const RECENT = "recordings in the list"; // as list.js keeps them

const box = document.getElementById("player");
const byId = (id) => document.getElementById(id);

class RecordingPage {
  constructor() {
    this.tracks = JSON.parse(box.dataset.tracks);
    this.spans = JSON.parse(box.dataset.spans);
    this.duration = Number(box.dataset.duration);
    this.waves = byId("waves");
    this.peaks = null;
    const names = this.tracks.length ? this.tracks : [];
    this.player = new Player(names.map((track) => new WavFile(`${box.dataset.audio}/${track}.wav`)));
    this.player.duration = this.duration;
    this.soloed = null;
    this.muted = new Set();
    this.events = [...document.querySelectorAll("#events > li")];
  }

  start() {
    box.querySelector("audio")?.remove();
    for (const element of box.querySelectorAll("[data-script]")) element.hidden = false;
    this.#listen();
    this.#placeEvents();
    this.#drawScale();
    this.#draw();
    this.#loadPeaks();
    const asked = Number(new URLSearchParams(location.search).get("t"));
    if (asked > 0) this.player.seek(Math.min(asked, this.duration));
    this.#showState();
    const watch = () => {
      this.#showPosition();
      requestAnimationFrame(watch);
    };
    watch();
    window.tapreelPlayer = this.player; // for whoever looks into it with the browser's tools
  }

  #listen() {
    const { player } = this;
    byId("play").addEventListener("click", () => player.toggle());
    byId("back").addEventListener("click", () => this.#step(-STEP_SECONDS));
    byId("forth").addEventListener("click", () => this.#step(STEP_SECONDS));
    byId("next-event").addEventListener("click", () => this.#goToEvent(1));
    byId("skip").addEventListener("change", (event) => player.setSkips(event.target.checked));
    byId("copy").addEventListener("click", () => this.#copyLink());
    for (const button of box.querySelectorAll("[data-speed]")) {
      button.addEventListener("click", () => this.#setSpeed(Number(button.dataset.speed)));
    }
    for (const button of box.querySelectorAll("[data-solo], [data-mute]")) {
      button.addEventListener("click", () => this.#hear(button));
    }
    for (const link of document.querySelectorAll("a[data-at]")) {
      link.addEventListener("click", (event) => {
        event.preventDefault();
        this.#goTo(Number(link.dataset.at));
      });
    }
    player.addEventListener("state", () => this.#showState());
    player.addEventListener("failed", ({ detail }) => this.#showFailure(detail));
    reportHeard(player, `${box.dataset.audio}/heard`);
    this.#listenToWaves();
    document.addEventListener("keydown", (event) => this.#onKey(event));
    new ResizeObserver(() => this.#draw()).observe(this.waves);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  #listenToWaves() {
    const place = (event) => {
      const { left, width } = this.waves.getBoundingClientRect();
      return (Math.min(Math.max(event.clientX - left, 0), width) / width) * this.duration;
    };
    this.waves.addEventListener("pointerdown", (event) => {
      if (event.button === 0) this.#goTo(place(event));
    });
    this.waves.addEventListener("pointermove", (event) => {
      if (event.buttons === 1 && this.player.state === "paused") this.#goTo(place(event));
      this.#showHint(event, place(event));
    });
    this.waves.addEventListener("pointerleave", () => (byId("hint").hidden = true));
    this.waves.addEventListener("keydown", (event) => {
      if (event.key === "Home") this.#goTo(0, event);
      if (event.key === "End") this.#goTo(this.duration, event);
    });
  }

  #showHint(event, second) {
    const hint = byId("hint");
    const { left, top, width, height } = this.waves.getBoundingClientRect();
    const lane = Math.floor(((event.clientY - top) / height) * this.tracks.length);
    const reach = (3 / width) * this.duration;
    const span = this.spans.find(
      ({ track, from, to }) =>
        track === this.tracks[lane] && from - reach <= second && second <= Math.max(to, from + reach),
    );
    hint.hidden = !span;
    if (!span) return;
    hint.textContent = span.text;
    const right = width - hint.offsetWidth;
    hint.style.left = `${Math.max(0, Math.min(event.clientX - left + 10, right))}px`;
  }

  #onKey(event) {
    if (isTyping(event)) return;
    const keys = {
      " ": () => !isPressable(event) && this.player.toggle(),
      ArrowLeft: () => (event.shiftKey ? this.#goToEvent(-1) : this.#step(-STEP_SECONDS)),
      ArrowRight: () => (event.shiftKey ? this.#goToEvent(1) : this.#step(STEP_SECONDS)),
      j: () => this.#goToNeighbour(1),
      k: () => this.#goToNeighbour(-1),
      c: () => this.#copyLink(),
      n: () => this.#openNote(),
    };
    const act = keys[event.key];
    if (act && act() !== false) event.preventDefault();
  }

  #step(seconds) {
    this.#goTo(this.player.position + seconds);
  }

  #goTo(second, event) {
    event?.preventDefault();
    this.player.seek(Math.min(Math.max(second, 0), this.duration));
    this.#showPosition();
  }

  #goToEvent(direction) {
    const now = this.player.position;
    const places = this.events.map((element) => Number(element.dataset.at)).sort((a, b) => a - b);
    const next = places.filter((place) => place > now + 0.05);
    const before = places.filter((place) => place < now - 0.6);
    const target = direction > 0 ? next[0] : before.at(-1);
    if (target === undefined) toast(direction > 0 ? "No event behind this" : "No event before this");
    else this.#goTo(target);
  }

  #goToNeighbour(direction) {
    const ids = JSON.parse(sessionStorage.getItem(RECENT) ?? "[]");
    const at = ids.indexOf(box.dataset.id);
    const next = at < 0 ? undefined : ids[at + direction];
    if (next) location.assign(`/recordings/${next}`);
    else toast(at < 0 ? "Open it from a list to go on in that list" : "The list ends here");
  }

  #openNote() {
    const menu = byId("note-menu");
    if (!menu) return false;
    menu.open = true;
    menu.querySelector("input[name=at]").value = clockText(this.player.position);
    menu.querySelector("textarea").focus();
    return true;
  }

  #copyLink() {
    const url = new URL(location.href);
    url.search = `?t=${this.player.position.toFixed(2)}`;
    url.hash = "";
    copy(url.href);
  }

  #setSpeed(speed) {
    this.player.setSpeed(speed);
    for (const button of box.querySelectorAll("[data-speed]")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.speed) === speed));
    }
  }

  #hear(button) {
    const { solo, mute } = button.dataset;
    if (solo) this.soloed = this.soloed === solo ? null : solo;
    if (mute && !this.muted.delete(mute)) this.muted.add(mute);
    const isHeard = (track) =>
      this.soloed ? this.soloed === track : !this.muted.has(track);
    this.player.setHeard(this.tracks.map(isHeard));
    for (const each of box.querySelectorAll("[data-solo]")) {
      each.setAttribute("aria-pressed", String(each.dataset.solo === this.soloed));
    }
    for (const each of box.querySelectorAll("[data-mute]")) {
      each.setAttribute("aria-pressed", String(this.muted.has(each.dataset.mute)));
    }
  }

  #showState() {
    const { state } = this.player;
    const play = byId("play");
    play.classList.toggle("playing", state !== "paused");
    play.classList.toggle("waiting", state === "waiting");
    play.setAttribute("aria-label", state === "paused" ? "Play" : "Pause");
    byId("failure").hidden = true;
    this.#showPosition();
  }

  #showFailure(reason) {
    const line = byId("failure");
    line.textContent = `The audio cannot be played: ${reason}.`;
    line.hidden = false;
  }

  #showPosition() {
    const second = this.player.position;
    const text = clockText(second);
    if (text === this.shown) return;
    this.shown = text;
    byId("at").textContent = text;
    byId("copy-at").textContent = text;
    const share = this.duration ? Math.min(second / this.duration, 1) : 0;
    byId("head").style.left = `calc(${share * 100}% - 1px)`;
    this.waves.setAttribute("aria-valuenow", second.toFixed(2));
    this.waves.setAttribute("aria-valuetext", `${clockText(second, 0)} of ${clockText(this.duration, 0)}`);
  }

  async #loadPeaks() {
    try {
      const answer = await fetch(`${box.dataset.audio}/peaks.dat`);
      if (!answer.ok) throw new Error(`${answer.status}`);
      this.peaks = parsePeaks(await answer.arrayBuffer());
    } catch {
      byId("no-peaks").hidden = false;
      return;
    }
    this.player.skipped = silences(this.peaks);
    box.dataset.ready = "yes";
    this.#draw();
  }

  #draw() {
    const style = getComputedStyle(box);
    this.tracks.forEach((track, lane) => {
      const canvas = byId(`wave-${track}`);
      const colour = style.getPropertyValue(track === "inbound" ? "--caller" : "--agent").trim();
      const spans = this.spans.filter((span) => span.track === track);
      const channel = this.peaks?.channels === 1 ? 0 : track === "inbound" ? 0 : 1;
      drawWave(canvas, this.peaks, channel ?? lane, this.duration, spans, colour);
    });
    this.#placeEvents();
  }

  /** Put what happened under the place where it did, in as many rows as it takes. */
  #placeEvents() {
    const list = byId("events");
    const width = list.clientWidth;
    if (!width || !this.events.length) return;
    list.classList.add("placed");
    const ends = [];
    for (const item of [...this.events].sort((a, b) => a.dataset.at - b.dataset.at)) {
      const middle = ((Number(item.dataset.at) + Number(item.dataset.end)) / 2 / this.duration) * width;
      const wide = item.offsetWidth;
      const left = Math.max(0, Math.min(middle - wide / 2, width - wide));
      let row = ends.findIndex((end) => end + 4 <= left);
      if (row < 0) row = ends.length < 4 ? ends.push(0) - 1 : 3;
      ends[row] = left + wide;
      item.style.left = `${left}px`;
      item.style.top = `${row * 25}px`;
    }
    list.style.height = `${ends.length * 25}px`;
  }

  #drawScale() {
    const scale = byId("scale");
    const steps = [1, 2, 4, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];
    const step = steps.find((each) => this.duration / each <= 6) ?? this.duration / 6;
    for (let at = 0; at < this.duration - step * 0.4; at += step) this.#tick(scale, at);
    this.#tick(scale, this.duration);
  }

  #tick(scale, at) {
    const label = document.createElement("span");
    label.textContent = clockText(at, 0);
    if (this.duration) label.style.left = `${(at / this.duration) * 100}%`;
    scale.append(label);
  }
}

if (box) new RecordingPage().start();
