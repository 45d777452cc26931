// A sign-in link has its code behind the #, which browsers send to nobody. It is used at once, and
// taken out of the address, where others could read it over a shoulder.

const code = location.hash.slice(1);
if (code) {
  history.replaceState(null, "", location.pathname + location.search);
  const form = document.getElementById("by-code");
  form.elements.code.value = code;
  form.requestSubmit();
}
