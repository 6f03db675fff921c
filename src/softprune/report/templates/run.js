// The run page's own controls: the map of importance, what was searched, nearest words, runs beside it.
(() => {
  "use strict";
  const find = (query) => document.querySelector(query);
  const explore = softprune.data("explore");
  const neighbours = softprune.data("neighbours");
  const NOT_MEASURED = "not measured";

  for (const element of document.querySelectorAll(".still-text")) element.hidden = true;

  /** An element with text, attributes or children; text stays text. */
  function create(tag, { text, children = [], ...attributes } = {}) {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function definitions(pairs) {
    return create("dl", { children: pairs.flatMap(([name, value]) => [create("dt", { text: name }), create("dd", { text: value })]) });
  }

  /** Booleans from base64, eight a byte from the highest bit. */
  function bits(packed, count) {
    const bytes = atob(packed);
    return Array.from({ length: count }, (_, at) => ((bytes.charCodeAt(at >> 3) >> (7 - (at & 7))) & 1) === 1);
  }

  /** A colour at a place from 0 to 1 of a scale. */
  function mixed(scale, place) {
    const at = Math.min(Math.max(place, 0), 1) * (scale.length - 1);
    const [low, high] = [scale[Math.floor(at)][1], scale[Math.ceil(at)][1]];
    const channel = (colour, n) => parseInt(colour.slice(1 + 2 * n, 3 + 2 * n), 16);
    const share = at - Math.floor(at);
    return "rgb(" + [0, 1, 2].map((n) => Math.round(channel(low, n) + share * (channel(high, n) - channel(low, n)))).join(",") + ")";
  }

  let pickToken = () => {};

  if (neighbours !== null) nearestWords();
  if (explore !== null) map();
  besideRuns();

  function map() {
    const { tokens: P, pieces: S, candidates } = explore;
    const table = find("[data-map]");
    const readout = find('[data-out="cell"]');
    const started = new Map((Object.values(neighbours?.prompts ?? {})[0] ?? []).map((found) => [found.token, found.word]));
    const columns = ["token", ...Array.from({ length: S }, (_, s) => "P" + s)];
    const cells = [];
    // What is shown: "whole", "none" (a pair that was not tried), or a candidate's place.
    let shown = "whole";
    let cursor = [0, 0];

    const step = [1, 2, 5, 10, 20, 50].find((n) => S <= n * 16) ?? 100;
    const head = columns.map((name, at) => create("th", { scope: "col", text: at === 0 ? "token" : (at - 1) % step === 0 ? name : "", "aria-label": name }));
    const corner = create("th", { scope: "col", "aria-label": "row" });
    head[0].textContent = S > 24 ? "" : "T";
    table.append(create("thead", { children: [create("tr", { children: [corner, ...head] })] }));
    const body = create("tbody");
    for (let p = 0; p < P; p++) {
      cells.push(columns.map((name, at) => {
        const cell = create("td", { role: "gridcell", tabindex: "-1", "aria-label": "T" + p + (at === 0 ? "" : ", piece " + name) });
        cell.dataset.at = p + "," + at;
        if (at === 0) cell.className = "own";
        return cell;
      }));
      body.append(create("tr", { children: [create("th", { scope: "row", text: "T" + p }), ...cells[p]] }));
    }
    table.append(body);
    table.style.minWidth = 2.6 + 0.65 * (S + 1) + "rem";

    const masks = candidates.map((found) => found.mask === null ? null
      : { token: bits(found.mask.token, P), piece: bits(found.mask.piece, P * S) });

    /** Whether a cell is kept: true, false, or null where that isn't known. */
    function kept(p, at) {
      if (shown === "whole") return true;
      const mask = shown === "none" ? null : masks[shown];
      if (mask === null) return null;
      return at === 0 ? mask.token[p] : mask.piece[p * S + at - 1];
    }

    /** The map's values: those of the winner were measured again on its own tokens. */
    function pieces() {
      return typeof shown === "number" && candidates[shown].winner && explore.winnerPiece ? explore.winnerPiece : explore.piece;
    }

    function value(p, at) {
      const rows = at === 0 ? explore.token : pieces();
      return rows === null ? null : at === 0 ? rows[p] : rows[p][at - 1];
    }

    function largest(of) {
      let top = 0;
      for (let p = 0; p < P; p++)
        for (let at = of === "token" ? 0 : 1; at <= (of === "token" ? 0 : S); at++)
          if (kept(p, at) !== false && value(p, at) !== null) top = Math.max(top, Math.abs(value(p, at)));
      return top;
    }

    function paint() {
      const palette = softprune.colours();
      const scale = explore.signed ? palette.signed_scale : palette.scale;
      const tops = [largest("token"), largest("piece")];
      for (let p = 0; p < P; p++)
        for (let at = 0; at <= S; at++) {
          const cell = cells[p][at];
          const found = value(p, at);
          const share = found === null || tops[at === 0 ? 0 : 1] === 0 ? 0 : found / tops[at === 0 ? 0 : 1];
          cell.classList.toggle("pruned", kept(p, at) === false);
          cell.style.background = found === null ? "" : mixed(scale, explore.signed ? (share + 1) / 2 : share);
        }
      const stops = scale.map(([place, colour]) => colour + " " + 100 * place + "%").join(", ");
      find("[data-key]").style.background = "linear-gradient(90deg, " + stops + ")";
      find("[data-key-low]").textContent = explore.signed ? "-1" : "0";
    }

    function fate(p, at) {
      if (shown === "whole") return "nothing is pruned";
      const state = kept(p, at);
      if (state === null) return shown === "none" ? "fate not measured: this pair was not tried" : "fate not kept by this run";
      if (kept(p, 0) === false) return "token pruned";
      return at > 0 && !state ? "piece pruned" : "kept";
    }

    function written(number) {
      return number === null ? NOT_MEASURED : Number(number.toPrecision(4)).toString();
    }

    function tell(p, at) {
      const word = started.get(p);
      const left = at === 0 && typeof shown === "number" && masks[shown] !== null
        ? ", " + cells[p].slice(1).filter((_, s) => kept(p, s + 1)).length + " of " + S + " pieces left" : "";
      const where = "Token T" + p + (word ? " (started as “" + word + "”)" : "") + (at === 0 ? "" : ", piece P" + (at - 1));
      const again = at > 0 && pieces() !== explore.piece ? " (on the winner's tokens)" : "";
      readout.replaceChildren(create("p", { children: [create("strong", { text: where })] }),
        create("p", { text: "importance " + written(value(p, at)) + again }), create("p", { text: fate(p, at) + left }));
    }

    function go(p, at, focus = true) {
      cells[cursor[0]][cursor[1]].tabIndex = -1;
      cursor = [Math.min(Math.max(p, 0), P - 1), Math.min(Math.max(at, 0), S)];
      const cell = cells[cursor[0]][cursor[1]];
      cell.tabIndex = 0;
      if (focus) cell.focus();
      tell(...cursor);
    }

    function place(event) {
      const cell = event.target.closest("td[data-at]");
      return cell === null ? null : cell.dataset.at.split(",").map(Number);
    }

    function pick(p) {
      for (const row of body.rows) row.classList.toggle("picked", row.rowIndex - 1 === p);
      pickToken(p);
    }

    table.addEventListener("keydown", (event) => {
      const [p, at] = cursor;
      const moves = { ArrowUp: [p - 1, at], ArrowDown: [p + 1, at], ArrowLeft: [p, at - 1], ArrowRight: [p, at + 1],
        Home: event.ctrlKey ? [0, 0] : [p, 0], End: event.ctrlKey ? [P - 1, S] : [p, S], PageUp: [p - 5, at], PageDown: [p + 5, at] };
      if (event.key === "Enter" || event.key === " ") pick(p);
      else if (event.key in moves) go(...moves[event.key]);
      else return;
      event.preventDefault();
    });
    table.addEventListener("focusin", (event) => { const at = place(event); if (at !== null) go(...at, false); });
    table.addEventListener("pointerover", (event) => { const at = place(event); if (at !== null) tell(...at); });
    table.addEventListener("pointerleave", () => tell(...cursor));
    table.addEventListener("click", (event) => { const at = place(event); if (at !== null) { go(...at); pick(at[0]); } });

    // What was searched. A slider's places are the ratios that were tried, or the tickets by size.
    const summary = find('[data-out="candidate"]');
    const choice = find('[data-pick="candidate"]');
    const [tokenRatios, pieceRatios] = explore.sliders;
    const slider = (name) => find('[data-slider="' + name + '"]');
    const bySize = slider("size"); // null where there are ratios, or one ticket

    function label(name, text) {
      find('[data-out="' + name + '"]').textContent = text;
      slider(name).setAttribute("aria-valuetext", text);
    }

    function summarise() {
      if (shown === "whole") summary.replaceChildren(create("p", { text: "The whole prompt: nothing is pruned." }));
      else if (shown === "none") summary.replaceChildren(create("p", { text: "This pair of ratios was not tried: not measured." }));
      else {
        const found = candidates[shown];
        const name = found.id + (found.winner ? " (winner)" : "");
        summary.replaceChildren(create("p", { children: [create("strong", { text: name })] }), definitions([
          ["tokens", found.tokens], ["pieces", found.pieces], ["parameters", found.parameters],
          ["loss before retraining", found.rankLoss], [explore.selectName, found.select], ["report (%)", found.report],
          ["95% interval", found.interval]]));
        if (found.mask === null) summary.append(create("p", { class: "none", text: "Which tokens and pieces it keeps wasn't stored with this run." }));
      }
    }

    function show(next) {
      shown = next;
      if (typeof shown === "number" && tokenRatios) {
        slider("tokenRatio").value = tokenRatios.indexOf(candidates[shown].tokenRatio);
        slider("pieceRatio").value = pieceRatios.indexOf(candidates[shown].pieceRatio);
      } else if (typeof shown === "number" && bySize) bySize.value = shown;
      if (candidates.length > 0) {
        choice.value = String(shown);
        labels();
      }
      summarise();
      paint();
      tell(...cursor);
    }

    function labels() {
      if (bySize) label("size", candidates[bySize.value].parameters + " parameters");
      else if (tokenRatios) {
        label("tokenRatio", tokenRatios[slider("tokenRatio").value] + "%");
        label("pieceRatio", pieceRatios[slider("pieceRatio").value] + "%");
      }
    }

    function slid() {
      const pair = [tokenRatios[slider("tokenRatio").value], pieceRatios[slider("pieceRatio").value]];
      const at = candidates.findIndex((found) => found.tokenRatio === pair[0] && found.pieceRatio === pair[1]);
      show(at < 0 ? "none" : at);
    }

    if (candidates.length > 0) {
      if (tokenRatios) {
        for (const [name, values] of [["tokenRatio", tokenRatios], ["pieceRatio", pieceRatios]]) {
          slider(name).max = String(values.length - 1);
          slider(name).addEventListener("input", slid);
        }
      } else bySize?.addEventListener("input", () => show(Number(bySize.value)));
      choice.addEventListener("change", () => show(choice.value === "whole" ? "whole" : Number(choice.value)));
    }
    cells[0][0].tabIndex = 0;
    const winner = candidates.findIndex((found) => found.winner);
    show(winner < 0 ? "whole" : winner);
    softprune.onTheme(paint);
  }

  function nearestWords() {
    const prompt = find('[data-pick="prompt"]');
    const choice = find('[data-pick="token"]');
    const measure = find('[data-pick="measure"]');

    function list(title, rows) {
      const lines = rows.map(([word, near], at) => create("tr", { children: [create("td", { text: String(at + 1) }),
        create("td", { text: word, class: "words" }), create("td", { text: near })] }));
      const head = ["rank", "word", measure.value].map((text) => create("th", { scope: "col", text, class: text === "word" ? "words" : "" }));
      const table = create("table", { children: [create("caption", { text: title }), create("thead", { children: [create("tr", { children: head })] }),
        create("tbody", { children: lines })] });
      if (rows.length > 0) softprune.makeSortable(table);
      return create("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title,
        children: rows.length > 0 ? [table] : [create("p", { class: "none", text: title + ": " + NOT_MEASURED })] });
    }

    function show() {
      const found = neighbours.prompts[prompt.value].find((each) => String(each.token) === choice.value);
      const [readout, near] = [find('[data-out="moved"]'), find("[data-near]")];
      if (found === undefined) {
        readout.replaceChildren(create("p", { text: "T" + choice.value + " is not in this prompt: it was pruned." }));
        near.replaceChildren();
        return;
      }
      readout.replaceChildren(definitions([["moved by", found.moved], ["distance", found.distance], ["cosine of start and end", found.cosine],
        ["nearest word stayed", found.kept[measure.value] ?? NOT_MEASURED]]));
      near.replaceChildren(list("before training", found.start[measure.value] ?? []), list("after training", found.end[measure.value] ?? []));
    }

    pickToken = (p) => {
      if ([...choice.options].every((option) => option.value !== String(p))) return;
      choice.value = String(p);
      show();
    };
    for (const each of [prompt, choice, measure]) each.addEventListener("change", show);
    show();
  }

  function besideRuns() {
    const choice = find('[data-pick="run"]');
    if (choice === null) return;
    const show = () => {
      for (const section of document.querySelectorAll("[data-run]")) section.hidden = section.dataset.run !== choice.value;
    };
    choice.addEventListener("change", show);
    show();
  }
})();
