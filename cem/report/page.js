"use strict";
// What the page can do beyond being read: sort, filter, fold and copy tables; name and filter the points of the front.
// Without it all of the page is there.
document.documentElement.classList.add("js");

const make = (tag, props = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), props);
  element.append(...children);
  return element;
};

// The number a cell stands for: its mean, whatever limit or interval stands beside it. NaN where there is none.
const numberOf = (text) => {
  const plain = text.replaceAll("−", "-").replaceAll(",", "").replaceAll("\u00a0", " ");
  if (/^[≤≥<>\s]*-?∞/.test(plain)) return plain.includes("-") ? -Infinity : Infinity;
  const found = /^[≤≥<>\s]*(log )?([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)/i.exec(plain);
  if (!found) return NaN;
  return found[1] ? Math.log(Number(found[2])) : Number(found[2]);
};

// Words with numbers in them, which may have a decimal point: λ 0.03 comes before λ 0.1.
const partsOf = (text) => text.split(/(\d+(?:\.\d+)?(?:e[-+]?\d+)?)/i);
const compareWords = (one, other) => {
  const mine = partsOf(one), theirs = partsOf(other);
  for (let place = 0; place < Math.min(mine.length, theirs.length); place += 1) {
    const apart = place % 2 ? mine[place] - theirs[place] : mine[place].localeCompare(theirs[place], "en");
    if (apart) return apart;
  }
  return mine.length - theirs.length;
};

const save = (name, text) => {
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
};

const copy = async (text, button) => {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { value: text });  // browsers that keep the clipboard from pages in files
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = label; }, 1200);
};

function furnish(box) {
  const table = box.querySelector("table"), body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const names = heads.map((head) => head.textContent), rows = [...body.rows];
  const texts = new Map(rows.map((row) => [row, [...row.cells].map((cell) => cell.textContent)]));
  const main = box.dataset.main ? box.dataset.main.split(",").map(Number) : names.map((_, place) => place);
  const shown = new Set(main);

  const fold = () => {
    for (const row of [table.tHead.rows[0], ...rows])
      [...row.cells].forEach((cell, place) => cell.classList.toggle("off", !shown.has(place)));
  };
  const close = () => {
    body.querySelectorAll(".rest").forEach((row) => row.remove());
    body.querySelectorAll("th button").forEach((button) => { button.textContent = "+"; button.ariaExpanded = "false"; });
  };
  const lines = () => [names, ...rows.filter((row) => !row.classList.contains("off")).map((row) => texts.get(row))];
  const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

  const sort = (place) => {
    const head = heads[place], turn = head.ariaSort === "ascending" ? -1 : 1;
    heads.forEach((one) => { one.ariaSort = null; });
    head.ariaSort = turn > 0 ? "ascending" : "descending";
    const worth = (row) => numberOf(texts.get(row)[place]);
    const words = heads[place].className !== "number";
    rows.sort((one, other) => {
      if (words) return turn * compareWords(texts.get(one)[place], texts.get(other)[place]);
      const [a, b] = [worth(one), worth(other)];
      if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b);  // cells without a number are last either way
      return a === b ? 0 : turn * (a < b ? -1 : 1);
    });
    close();
    body.append(...rows);
  };
  heads.forEach((head, place) => {
    head.replaceChildren(make("button", { type: "button", textContent: names[place], title: "Sort" }));
    head.firstChild.addEventListener("click", () => sort(place));
  });

  const tools = box.querySelector(".tools");
  const filter = make("input", { type: "search", placeholder: "Filter rows" });
  filter.ariaLabel = `Filter the rows of: ${table.caption.textContent.trim()}`;
  filter.addEventListener("input", () => {
    close();
    const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = texts.get(row).join(" ").toLowerCase();
      row.classList.toggle("off", !wanted.every((word) => text.includes(word)));
    }
  });
  if (rows.length > 1) tools.append(filter);
  if (names.length > 6) {
    const list = make("fieldset");
    names.forEach((name, place) => {
      if (place === 0) return;
      const tick = make("input", { type: "checkbox", checked: shown.has(place) });
      tick.addEventListener("change", () => {
        if (tick.checked) shown.add(place); else shown.delete(place);
        close();
        fold();
      });
      list.append(make("label", {}, tick, ` ${name}`));
    });
    tools.append(make("details", {}, make("summary", { textContent: `Columns (${names.length})` }), list));
  }
  const button = make("button", { type: "button", textContent: "Copy" });
  button.addEventListener("click", () => copy(lines().map((line) => line.join("\t")).join("\n"), button));
  const download = make("button", { type: "button", textContent: "CSV" });
  download.addEventListener("click", () =>
    save(`${box.dataset.name}.csv`, lines().map((line) => line.map(quoted).join(",")).join("\r\n") + "\r\n"));
  tools.append(button, download);

  if (shown.size < names.length) {
    for (const row of rows) {
      const more = make("button", { type: "button", textContent: "+", title: "All columns of this row" });
      more.ariaExpanded = "false";
      more.addEventListener("click", () => {
        if (row.nextSibling?.className === "rest") {
          row.nextSibling.remove();
          more.textContent = "+";
          more.ariaExpanded = "false";
          return;
        }
        const facts = make("dl");
        names.forEach((name, place) => {
          if (!shown.has(place))
            facts.append(make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: texts.get(row)[place] })));
        });
        row.after(make("tr", { className: "rest" }, make("td", { colSpan: shown.size }, facts)));
        more.textContent = "−";
        more.ariaExpanded = "true";
      });
      row.cells[0].prepend(more);
    }
  }
  fold();
}

function explain(front) {
  const svg = front.querySelector("svg"), tip = front.querySelector(".tip");
  const points = [...svg.querySelectorAll(".point")];
  points.forEach((point) => {  // the browser's own tip would cover ours
    const title = point.querySelector("title");
    point.dataset.text = title.textContent;
    title.remove();
  });
  const tell = (point) => {
    svg.querySelectorAll(".hit").forEach((one) => one.classList.remove("hit"));
    tip.style.display = point ? "block" : "none";
    if (!point) return;
    point.classList.add("hit");
    tip.textContent = point.dataset.text;
    const frame = front.getBoundingClientRect(), dot = point.querySelector(".dot").getBoundingClientRect();
    const left = dot.left - frame.left + 14;
    tip.style.left = `${Math.max(0, Math.min(left, frame.width - tip.offsetWidth))}px`;
    tip.style.top = `${dot.top - frame.top + 14}px`;
  };
  svg.addEventListener("pointermove", (event) => {
    let nearest = null, least = 24;
    for (const point of points) {
      const box = point.querySelector(".dot").getBoundingClientRect();
      if (!box.width) continue;
      const apart = Math.hypot(box.left + box.width / 2 - event.clientX, box.top + box.height / 2 - event.clientY);
      if (apart < least) [nearest, least] = [point, apart];
    }
    tell(nearest);
  });
  svg.addEventListener("pointerleave", () => tell(null));
  points.forEach((point) => {
    point.tabIndex = 0;
    point.addEventListener("focus", () => tell(point));
    point.addEventListener("blur", () => tell(null));
  });
  front.querySelectorAll(".legend input").forEach((tick) =>
    tick.addEventListener("change", () => {
      svg.querySelector(`[data-family="${tick.value}"]`).classList.toggle("off", !tick.checked);
    }));
}

document.querySelectorAll(".table").forEach(furnish);
document.querySelectorAll(".front").forEach(explain);
addEventListener("beforeprint", () => document.querySelectorAll("main details").forEach((one) => { one.open = true; }));
