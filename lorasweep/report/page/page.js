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

/** Draw the figures of one section; for those without data, show why. */
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
  const label = () => {
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} colours`);
  };
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    label();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
  button.hidden = false;
  label();
}

/** Select a command and copy it; where the clipboard is refused, it stays selected for Ctrl+C. */
function setUpCopying() {
  for (const button of document.querySelectorAll("button.copy")) {
    const command = button.parentElement.querySelector("code");
    button.hidden = false;
    button.addEventListener("click", async () => {
      const selection = window.getSelection();
      selection.selectAllChildren(command);
      let result = "Copied";
      try {
        await navigator.clipboard.writeText(command.textContent);
      } catch {
        result = "Selected: press Ctrl+C";
      }
      button.textContent = result;
      announce(result);
      setTimeout(() => { button.textContent = "Copy"; }, 2500);
    });
  }
}

/**
 * Show everything while printing, since paper cannot be opened, scrolled or paged.
 * Tables that repeat the trials stay closed: the table of all trials has them.
 */
function setUpPrinting(table) {
  let opened = null; // null until printing begins, which browsers announce by one event or by two
  const prepare = () => {
    if (opened) return;
    table.print?.(true);
    opened = [...document.querySelectorAll("details:not([open], .repeats)")];
    for (const details of opened) {
      details.open = true;
      details.dispatchEvent(new Event("toggle")); // the browser's own comes after the pages are laid out
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
