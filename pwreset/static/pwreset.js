// A Show/Hide button for every password field, and the cursor in the first field that needs mending.
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

document.querySelectorAll('input[type="password"]').forEach(revealButton);
document.querySelector('[aria-invalid="true"]')?.focus();
