// What all pages share: keys, times in the reader's own zone, menus, messages, requests.

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const two = (number) => String(number).padStart(2, "0");

/** Return seconds as 0:07.40, with as many decimals as asked for. */
export function clockText(seconds, decimals = 2) {
  const unit = 10 ** decimals;
  const units = Math.floor(Math.max(0, seconds) * unit + 1e-6);
  const whole = Math.floor(units / unit);
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  const head = hours ? `${hours}:${two(minutes)}` : `${minutes}`;
  const rest = decimals ? `.${String(units % unit).padStart(decimals, "0")}` : "";
  return `${head}:${two(whole % 60)}${rest}`;
}

/** Show a short message, also to those who hear the page. */
export function toast(text) {
  const line = document.getElementById("toast");
  line.textContent = text;
  line.hidden = false;
  clearTimeout(line.timer);
  line.timer = setTimeout(() => (line.hidden = true), 4000);
}

/** Send something to the server as this user. */
export function post(url, body) {
  const token = document.querySelector('meta[name="csrf"]')?.content ?? "";
  return fetch(url, {
    method: "POST",
    keepalive: true, // also while the page is left
    headers: { "Content-Type": "application/json", "X-CSRF-Token": token },
    body: JSON.stringify(body),
  });
}

/** Report what a player plays to the ledger: at each break, and every ten seconds. */
export function reportHeard(player, url) {
  player.addEventListener("span", ({ detail }) => {
    const body = { from_s: round(detail.from), to_s: round(detail.to) };
    if (body.to_s > body.from_s) post(url, body).catch(() => {}); // it is told again by the next
  });
  const timer = setInterval(() => player.reportSoFar(), 10000);
  addEventListener("pagehide", () => player.pause());
  return () => clearInterval(timer);
}

const round = (seconds) => Math.round(seconds * 1000) / 1000;

/** Whether a key press is meant for a field or a menu rather than for the page. */
export function isTyping(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return true;
  if (document.querySelector("dialog[open]")) return true;
  const field = event.target.closest?.("input, textarea, select, [contenteditable]");
  return Boolean(field) && !["checkbox", "radio"].includes(field.type);
}

/** Whether a key already does something where the focus is. */
export function isPressable(event) {
  const pressable = event.key === " " ? "button, summary, input" : "button, summary, input, a";
  return Boolean(event.target.closest?.(pressable));
}

function showOwnTimes() {
  const now = new Date();
  for (const element of document.querySelectorAll("time[datetime]")) {
    const time = new Date(element.dateTime);
    if (Number.isNaN(time.getTime())) continue;
    element.title ||= `${element.dateTime} (UTC)`;
    element.textContent = ownTime(time, now, element.dataset.form);
  }
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  for (const element of document.querySelectorAll("[data-zone]")) element.textContent = zone;
}

function ownTime(time, now, form) {
  const clock = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  const day = `${time.getDate()} ${MONTHS[time.getMonth()]}`;
  const year = time.getFullYear();
  if (form === "day") return `${day} ${year}`;
  if (form === "full") return `${day} ${year}, ${clock}`;
  if (time.toDateString() === now.toDateString()) return clock;
  return year === now.getFullYear() ? `${day}, ${clock}` : `${day} ${year}, ${clock}`;
}

/** Fields of times are written in the reader's zone and sent with it. */
function sendOwnTimes() {
  for (const form of document.querySelectorAll("form[data-times]")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const target = new URL(form.action, location.href);
      for (const [name, value] of new FormData(form)) {
        const local = form.elements[name]?.type === "datetime-local";
        if (value) target.searchParams.append(name, local ? new Date(value).toISOString() : value);
      }
      location.assign(target);
    });
  }
}

function closeMenus(event) {
  for (const menu of document.querySelectorAll("details.menu[open], details.who[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
}

function onKey(event) {
  if (event.key === "Escape") {
    const menu = document.querySelector("details.menu[open], details.who[open]");
    if (menu) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
    return;
  }
  if (isTyping(event)) return;
  if (event.key === "/") {
    const search = document.getElementById("search");
    if (!search) return;
    event.preventDefault();
    search.focus();
    search.select();
  } else if (event.key === "?") {
    event.preventDefault();
    document.getElementById("help")?.showModal();
  }
}

function askFirst(event) {
  const question = event.submitter?.dataset.ask ?? event.target.dataset.ask;
  if (question && !confirm(question)) event.preventDefault();
}

function showHelpInPlace() {
  const help = document.getElementById("help");
  for (const link of document.querySelectorAll('a[href="/help"]')) {
    link.addEventListener("click", (event) => {
      if (!help) return;
      event.preventDefault();
      help.showModal();
    });
  }
}

function prepareCopying() {
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button.dataset.copy));
  }
}

/** Put a text on the clipboard and say so. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied");
  } catch {
    toast(`The browser does not let pages copy: ${text}`);
  }
}

document.documentElement.classList.remove("no-script");
document.addEventListener("keydown", onKey);
document.addEventListener("click", closeMenus);
document.addEventListener("submit", askFirst);
showOwnTimes();
sendOwnTimes();
showHelpInPlace();
prepareCopying();
