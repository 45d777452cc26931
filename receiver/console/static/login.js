// A sign-in link carries its code behind "#", where no server and no log sees it.
const code = location.hash.slice(1);
const form = document.getElementById("by-code");
if (code && form) {
  history.replaceState(null, "", location.pathname + location.search);
  form.elements.code.value = code;
  form.requestSubmit();
}
