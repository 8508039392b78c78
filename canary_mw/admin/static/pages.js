// What the pages do in the browser beyond links and forms. Without this file they show the same, of one moment.
"use strict";

(() => {
  const live = document.getElementById("live");
  const state = document.getElementById("state");
  const word = state.querySelector(".word");
  const age = state.querySelector(".age");
  const pause = document.getElementById("pause");
  const colours = document.getElementById("colours");
  const lost = document.getElementById("lost");
  // Seconds without a word of the server after which it is lost. It says something each second.
  const PATIENCE = 5;
  const POLL = 5000;
  // Seconds between two changes of verdicts that are read aloud.
  const QUIET = 10;

  let heard = Date.now();
  let shown = live.dataset.now.slice(11, 19);
  let poll = 0;

  const paused = () => pause.getAttribute("aria-pressed") === "true";

  const tell = (name, text, rest) => {
    if (state.dataset.state !== name) state.dataset.state = name;
    if (word.textContent !== text) word.textContent = text;
    if (age.textContent !== rest) age.textContent = rest;
  };

  const refresh = () => {
    const seconds = Math.round((Date.now() - heard) / 1000);
    const gone = !document.hidden && seconds > PATIENCE;
    if (paused()) {
      tell("paused", "Paused", "· " + shown);
    } else if (gone) {
      tell("lost", "Lost", "· " + shown);
    } else {
      tell("live", "Live", seconds < 1 ? "· now" : "· " + seconds + " s ago");
    }
    lost.querySelector(".of").textContent = shown;
    lost.hidden = paused() || !gone;
  };

  const hear = (time) => {
    heard = Date.now();
    if (time && !paused()) shown = time;
    refresh();
  };

  const fetchOnce = () => htmx.ajax("GET", live.dataset.once, { target: live, source: document.body, swap: "innerMorph" });

  live.addEventListener("tick", (event) => hear(event.detail.data));
  live.addEventListener("htmx:sse:after:connection", () => {
    clearInterval(poll);
    poll = 0;
  });
  live.addEventListener("htmx:sse:error", () => {
    heard = Math.min(heard, Date.now() - 1000 * (PATIENCE + 1));
    refresh();
  });
  // While the page rests, what comes is left. What a person reads does not move under the eyes.
  live.addEventListener("htmx:sse:before:message", (event) => {
    if (paused() && !event.detail.message.event) event.preventDefault();
  });
  // Too many pages are open: this one asks now and then.
  document.addEventListener("htmx:response:error", (event) => {
    if (event.detail.ctx.response.status === 503 && !poll) {
      poll = setInterval(() => paused() || document.hidden || fetchOnce(), POLL);
      fetchOnce();
    }
  });
  document.body.addEventListener("htmx:after:request", (event) => {
    const ctx = event.detail.ctx;
    if (poll && ctx.response && ctx.response.status === 200) hear(new Date().toISOString().slice(11, 19));
  });
  document.addEventListener("visibilitychange", () => {
    heard = Date.now();
    refresh();
  });
  setInterval(refresh, 1000);

  pause.addEventListener("click", () => {
    pause.setAttribute("aria-pressed", String(!paused()));
    refresh();
    if (!paused()) fetchOnce();
  });

  colours.addEventListener("click", (event) => {
    event.preventDefault();
    const order = ["auto", "light", "dark"];
    const chosen = colours.value;
    const base = colours.form.getAttribute("action").replace(/colours$/, "");
    document.cookie = "canary_mw_colours=" + chosen + "; path=" + base + "; max-age=31536000; samesite=strict";
    if (chosen === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
    colours.setAttribute("aria-label", "Colours: " + chosen);
    colours.querySelector("span").textContent = chosen[0].toUpperCase() + chosen.slice(1);
    colours.value = order[(order.indexOf(chosen) + 1) % order.length];
  });

  document.addEventListener("keydown", (event) => {
    const field = document.getElementById("find");
    const typing = event.target.closest("input, textarea, select");
    if (event.key === "/" && field && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      field.focus();
      field.select();
    }
  });

  const copy = async (button, text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    const before = button.lastChild.textContent;
    button.lastChild.textContent = "Copied";
    setTimeout(() => { button.lastChild.textContent = before; }, 1500);
  };

  const quoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";

  const curl = (form) => {
    const value = (name) => form.elements[name].value.trim();
    const parts = ["curl"];
    if (value("method") !== "GET") parts.push(value("method") === "HEAD" ? "-I" : "-X " + value("method"));
    for (const line of value("headers").split("\n")) if (line.trim()) parts.push("-H " + quoted(line.trim()));
    if (value("cookies")) parts.push("-b " + quoted(value("cookies")));
    parts.push(quoted(value("url")));
    return parts.join(" ");
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.copy) copy(button, button.dataset.copy);
    else if ("curl" in button.dataset) copy(button, curl(button.form));
  });

  // Times are UTC; a pointer on one shows that of the reader.
  document.addEventListener("pointerover", (event) => {
    const time = event.target.closest("time[datetime]");
    if (time && !time.title) time.title = new Date(time.dateTime).toLocaleString();
  });

  // A change of a verdict is said, figures are not.
  const aloud = document.getElementById("verdicts");
  const verdicts = () => new Map([...live.querySelectorAll("[data-verdict]")].map((each) => [each.dataset.release, each.dataset.verdict]));
  let known = verdicts();
  let waiting = new Map();
  let saidAt = 0;
  let timer = 0;
  const say = () => {
    timer = 0;
    saidAt = Date.now();
    aloud.textContent = [...waiting].map(([name, verdict]) => name + ": " + verdict + ".").join(" ");
    waiting = new Map();
  };
  document.addEventListener("htmx:after:swap", () => {
    const now = verdicts();
    for (const [name, verdict] of now) if (known.has(name) && known.get(name) !== verdict) waiting.set(name, verdict);
    known = now;
    if (waiting.size && !timer) timer = setTimeout(say, Math.max(0, saidAt + 1000 * QUIET - Date.now()));
  });

  refresh();
})();
