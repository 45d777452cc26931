// The list of recordings: going through it by keys, playing in the row, choosing many.

import { clockText, isPressable, isTyping, reportHeard } from "./console.js";
import { Player } from "./player.js";
import { WavFile } from "./wav.js";

const PORTION = 25;
const RECENT = "recordings in the list";

class RecordingList {
  constructor() {
    this.rows = [...document.querySelectorAll("tr[data-id]")];
    this.dock = document.getElementById("dock");
    this.player = null;
    this.playing = null;
    this.at = -1;
  }

  start() {
    sessionStorage.setItem(RECENT, JSON.stringify(this.rows.map((row) => row.dataset.id)));
    for (const row of this.rows) {
      row.querySelector(".play")?.addEventListener("click", (event) => {
        event.preventDefault();
        this.#play(row);
      });
    }
    document.addEventListener("keydown", (event) => this.#onKey(event));
    this.#prepareDock();
    this.#prepareChoice();
    this.#prepareFacets();
  }

  #onKey(event) {
    if (isTyping(event)) return;
    const row = this.rows[this.at];
    const keys = {
      j: () => this.#go(1),
      k: () => this.#go(-1),
      Enter: () => row && !isPressable(event) && row.querySelector("a.open").click(),
      " ": () => !isPressable(event) && this.#space(row),
      x: () => row?.querySelector("input[type=checkbox]")?.click(),
      ArrowLeft: () => this.#step(-5),
      ArrowRight: () => this.#step(5),
    };
    const act = keys[event.key];
    if (!act) return;
    const did = act();
    if (did !== false && did !== undefined) event.preventDefault();
  }

  #go(direction) {
    if (!this.rows.length) return false;
    this.rows[this.at]?.classList.remove("current");
    this.at = Math.min(Math.max(this.at + direction, 0), this.rows.length - 1);
    const row = this.rows[this.at];
    row.classList.add("current");
    row.querySelector("a.open").focus({ preventScroll: true });
    row.scrollIntoView({ block: "nearest" });
    return true;
  }

  #space(row) {
    if (row) return this.#play(row);
    return this.player ? this.player.toggle() : false;
  }

  #step(seconds) {
    if (!this.player) return false;
    this.player.seek(this.player.position + seconds);
    return true;
  }

  #play(row) {
    if (this.playing === row) {
      this.player.toggle();
      return true;
    }
    this.player?.pause();
    this.stopReporting?.();
    this.playing?.querySelector(".play").classList.remove("playing", "waiting");
    this.playing = row;
    const tracks = row.dataset.tracks.split(" ");
    const base = `/api/v1/recordings/${row.dataset.id}`;
    const player = new Player(tracks.map((track) => new WavFile(`${base}/${track}.wav`)));
    player.duration = Number(row.dataset.duration);
    player.addEventListener("state", () => this.#showState());
    player.addEventListener("failed", ({ detail }) => this.#showFailure(detail));
    this.stopReporting = reportHeard(player, `${base}/heard`);
    this.player = player;
    this.dock.hidden = false;
    document.body.classList.add("has-dock");
    document.getElementById("dock-open").href = `/recordings/${row.dataset.id}`;
    document.getElementById("dock-name").textContent = row.dataset.name;
    document.getElementById("dock-seek").max = row.dataset.duration;
    player.play();
    return true;
  }

  #prepareDock() {
    const seek = document.getElementById("dock-seek");
    document.getElementById("dock-play").addEventListener("click", () => this.player?.toggle());
    seek.addEventListener("input", () => this.player?.seek(Number(seek.value)));
    const watch = () => {
      if (this.player) {
        const text = clockText(this.player.position, 0);
        const line = document.getElementById("dock-at");
        if (line.textContent !== text) {
          line.textContent = text;
          seek.value = this.player.position;
          seek.setAttribute("aria-valuetext", text);
        }
      }
      requestAnimationFrame(watch);
    };
    watch();
  }

  #showState() {
    const { state } = this.player;
    for (const button of [this.playing.querySelector(".play"), document.getElementById("dock-play")]) {
      button.classList.toggle("playing", state !== "paused");
      button.classList.toggle("waiting", state === "waiting");
    }
    const label = state === "paused" ? "Play" : "Pause";
    document.getElementById("dock-play").setAttribute("aria-label", label);
    document.getElementById("dock-failure").textContent = "";
  }

  #showFailure(reason) {
    document.getElementById("dock-failure").textContent = `It cannot be played: ${reason}.`;
  }

  #prepareChoice() {
    const bar = document.getElementById("selected");
    const all = document.getElementById("all");
    if (!bar || !all) return;
    const boxes = this.rows.map((row) => row.querySelector("input[type=checkbox]"));
    const show = () => {
      const chosen = boxes.filter((box) => box.checked).length;
      bar.hidden = chosen === 0;
      document.getElementById("chosen").textContent = `${chosen} selected`;
      all.checked = chosen > 0 && chosen === boxes.length;
      all.indeterminate = chosen > 0 && chosen < boxes.length;
    };
    bar.closest("form").addEventListener("submit", (event) => this.#changeInPortions(event, boxes));
    bar.querySelector("[name=reason]")?.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return; // a form would press its first button
      event.preventDefault();
      bar.querySelector("[value=hold]").click();
    });
    all.hidden = false;
    all.addEventListener("change", () => {
      for (const box of boxes) box.checked = all.checked;
      show();
    });
    for (const box of boxes) box.addEventListener("change", show);
    show();
  }

  /** Send a large selection some at a time, and show how far it is: each is synced to the disk. */
  async #changeInPortions(event, boxes) {
    const ids = boxes.filter((box) => box.checked).map((box) => box.value);
    if (!event.submitter?.name || ids.length <= PORTION || event.defaultPrevented) return;
    event.preventDefault();
    const form = event.target;
    const line = document.getElementById("chosen");
    const said = { said: "", done: 0, of: ids.length };
    let reason = "";
    form.querySelectorAll("button").forEach((button) => (button.disabled = true));
    for (let at = 0; at < ids.length; at += PORTION) {
      line.textContent = `${at} of ${ids.length} …`;
      const body = new URLSearchParams(new FormData(form));
      body.delete("id");
      body.set("act", event.submitter.value);
      for (const id of ids.slice(at, at + PORTION)) body.append("id", id);
      const headers = { Accept: "application/problem+json" };
      const answer = await fetch(form.action, { method: "POST", headers, body }).catch(() => null);
      const words = new URL(answer?.url ?? form.action, location.href).searchParams;
      if (answer?.ok && words.has("said")) {
        said.said = words.get("said");
        said.done += Number(words.get("done"));
      } else {
        reason = (await answer?.json().catch(() => null))?.detail ?? "The console does not answer.";
        if (![400, 404].includes(answer?.status)) break; // others may be changed nevertheless
      }
    }
    if (reason && (!said.done || !said.said)) {
      line.textContent = `Nothing is changed. ${reason}`;
      form.querySelectorAll("button").forEach((button) => (button.disabled = false));
      return;
    }
    const target = new URL(form.elements.back.value, location.href);
    for (const [name, value] of Object.entries(said)) target.searchParams.set(name, value);
    location.assign(target);
  }

  #prepareFacets() {
    const button = document.getElementById("facets-toggle");
    const facets = document.getElementById("facets");
    button?.addEventListener("click", () => {
      const open = facets.classList.toggle("open");
      button.setAttribute("aria-expanded", String(open));
    });
  }
}

new RecordingList().start();
