// A Show/Hide button for every password field, the cursor in the first field that needs mending, and no form sent
// twice by a double click: the second post would show that the link is used up, though all went well.
// The pages work without it: the buttons are made here, so without JavaScript there are none.
"use strict";

function revealButton(input) {
  const label = input.labels[0]?.textContent.trim().toLowerCase() ?? "password";
  const button = document.createElement("button");
  const status = document.createElement("span");

  function show(visible) {
    input.type = visible ? "text" : "password";
    button.textContent = visible ? "Hide" : "Show";
    button.setAttribute("aria-label", `${button.textContent} ${label}`);
  }

  button.type = "button";
  button.className = "reveal";
  button.setAttribute("aria-controls", input.id);
  button.addEventListener("click", () => {
    show(input.type === "password");
    status.textContent = input.type === "text" ? "Your password is visible" : "Your password is hidden";
  });
  status.className = "visually-hidden";
  status.setAttribute("role", "status");

  // Hidden again before it is sent: a browser may remember what was typed into a text field.
  input.form?.addEventListener("submit", () => show(false));
  show(false);
  input.after(button, status);
}

function sendOnce(form) {
  let sent = -Infinity;
  form.addEventListener("submit", (event) => {
    // Not for ever: somebody who stopped the page from loading may send it again.
    if (event.timeStamp - sent < 2000) {
      event.preventDefault();
    } else {
      sent = event.timeStamp;
    }
  });
}

document.querySelectorAll('input[type="password"]').forEach(revealButton);
document.querySelectorAll("form").forEach(sendOnce);
document.querySelector('[aria-invalid="true"], .notice.error ~ .field input')?.focus();
