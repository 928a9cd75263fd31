// Where it starts: the embedded data are read, the figures drawn section by section, and the page's
// own controls (theme, copying, printing) set up. Everything that is only read needs no script.

function start() {
  const { parts: packed } = JSON.parse(document.getElementById("data").textContent);
  const parts = packed.map(unfold);
  document.body.append(tooltip);
  const table = trialsTable(parts, document.getElementById("trials-table"));
  const find = (part, trial) => table.find(part, trial);
  for (const slot of document.querySelectorAll("[data-figures]")) fill(slot, parts[Number(slot.dataset.part)], find);
  setUpTheme();
  setUpCopying();
  setUpPrinting(table);
  window.addEventListener("scroll", scrolled, { passive: true });
  document.documentElement.classList.add("drawn");
}

/** Draw the figures of one section; those without data say why. */
function fill(slot, part, find) {
  const own = part.pictures.filter((picture) => picture.section === slot.dataset.figures);
  for (const picture of own.filter(({ panels }) => panels.length)) {
    slot.append(figureOf(pictureFigure(picture, part), Number(slot.dataset.depth), find));
  }
  const missing = own.map((picture) => picture.missing).filter(Boolean);
  if (missing.length) slot.append(html("p", { class: "quiet absent" }, missing.join(" ")));
}

function setUpTheme() {
  const button = document.getElementById("theme");
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const tell = () => {
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} colours`);
  };
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    tell();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", tell);
  button.hidden = false;
  tell();
}

/** Select a command and copy it; where the clipboard is refused, it stays selected for Ctrl+C. */
function setUpCopying() {
  for (const button of document.querySelectorAll("button.copy")) {
    const command = button.parentElement.querySelector("code");
    button.hidden = false;
    button.addEventListener("click", async () => {
      const selection = window.getSelection();
      selection.selectAllChildren(command);
      let said = "Copied";
      try {
        await navigator.clipboard.writeText(command.textContent);
      } catch {
        said = "Selected: press Ctrl+C";
      }
      button.textContent = said;
      announce(said);
      setTimeout(() => { button.textContent = "Copy"; }, 2500);
    });
  }
}

/** On paper nothing can be opened, scrolled or paged: show it all, and put it back afterwards.
 * Tables that repeat the trials stay closed, since the table of all trials has them. */
function setUpPrinting(table) {
  let opened = null; // null until a printer asks, which browsers tell in one way or two
  const prepare = () => {
    if (opened) return;
    table.print?.(true);
    opened = [...document.querySelectorAll("details:not([open], .repeats)")];
    for (const details of opened) {
      details.open = true;
      details.dispatchEvent(new Event("toggle")); // its own comes too late for the printer
    }
  };
  const restore = () => {
    table.print?.(false);
    for (const details of opened ?? []) details.open = false;
    opened = null;
  };
  const paper = matchMedia("print");
  paper.addEventListener("change", () => (paper.matches ? prepare() : restore()));
  window.addEventListener("beforeprint", prepare);
  window.addEventListener("afterprint", restore);
}

start();
