"use strict";
// Optional enhancements: sortable and filterable tables, tooltips, copy buttons. The page is complete without scripts.
(() => {
  const make = (name, set = {}, ...inner) => {
    const element = Object.assign(document.createElement(name), set);
    element.append(...inner);
    return element;
  };

  // Tables
  const key = (row, column) => {
    const cell = row.cells[column];
    const number = cell.dataset.number;
    return number === undefined ? cell.textContent.trim() : Number(number);
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === "number") return -1;
    if (typeof b === "number") return 1;
    return a.localeCompare(b, "en", { numeric: true });
  };
  const sort = (table, header, column) => {
    const numbers = header.classList.contains("num");
    const before = header.getAttribute("aria-sort");
    const down = before ? before === "ascending" : numbers;
    for (const each of header.parentNode.cells) each.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row, index) => ({ row, index, key: key(row, column) }));
    rows.sort((a, b) => {
      const missing = (typeof b.key === "number") - (typeof a.key === "number");
      if (numbers && missing) return missing; // missing values last in both directions
      return (down ? compare(b.key, a.key) : compare(a.key, b.key)) || a.index - b.index;
    });
    body.append(...rows.map((each) => each.row));
  };
  const filter = (table, query, count) => {
    const wanted = query.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !wanted.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    count.textContent = wanted.length ? `${shown} of ${table.tBodies[0].rows.length} rows` : "";
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      const button = make("button", { type: "button" }, ...header.childNodes);
      button.addEventListener("click", () => sort(table, header, column));
      header.append(button);
    });
    if (table.tBodies[0].rows.length < 12) continue;
    const field = make("input", { type: "search", placeholder: "text to match" });
    const count = make("output");
    field.addEventListener("input", () => filter(table, field.value, count));
    table.closest(".scroll").before(make("div", { className: "filter" }, make("label", {}, "Filter ", field), count));
  }

  // Tooltips of marks
  const tip = document.getElementById("tip");
  let current = null;
  const pictures = new WeakMap();
  const picture = (figure, label) => {
    const source = figure.querySelector("script.thumbnails");
    if (!source) return null;
    if (!pictures.has(figure)) pictures.set(figure, JSON.parse(source.textContent));
    const thumbnails = pictures.get(figure);
    return thumbnails[label] || thumbnails[label.split("; ")[0]] || null;
  };
  const place = (event) => {
    const room = tip.getBoundingClientRect();
    const right = document.documentElement.clientWidth - room.width - 8;
    const below = event.clientY + 16 + room.height < window.innerHeight;
    tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, right))}px`;
    tip.style.top = `${below ? event.clientY + 16 : Math.max(8, event.clientY - room.height - 12)}px`;
  };
  const hide = () => {
    tip.hidden = true;
    current = null;
  };
  document.addEventListener("pointermove", (event) => {
    const mark = event.target.closest?.("svg [aria-label][role='graphics-symbol']:not([aria-roledescription='axis'], [aria-roledescription='legend'])");
    if (!mark) return tip.hidden || hide();
    if (mark !== current) {
      current = mark;
      const label = mark.getAttribute("aria-label");
      const shown = picture(mark.closest("figure"), label);
      tip.replaceChildren(...(shown ? [make("img", { src: shown, alt: "" })] : []), ...label.split("; ").map((line) => make("div", {}, make("bdi", {}, line))));
      tip.hidden = false;
    }
    place(event);
  });
  document.addEventListener("scroll", hide, { passive: true });
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());

  // Commands
  for (const box of document.querySelectorAll(".command")) {
    const button = make("button", { type: "button" }, "Copy");
    button.addEventListener("click", async () => {
      const code = box.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        window.getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
    box.append(button);
  }

  // The current section in the navigation
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const link of links.values()) link.removeAttribute("aria-current");
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      }
    },
    { rootMargin: "-10% 0px -80% 0px" },
  );
  for (const section of document.querySelectorAll("main section[id]")) observer.observe(section);

  // Open all details for printing
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const each of opened) each.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const each of opened) each.open = false;
  });
})();
