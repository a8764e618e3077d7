// The page: one chart, the symbols and the gaps, kept up to date by a websocket.

import { Candles, tracesOf } from "./candles.js";

const COUNT = 240;
const COUNT_LEAST = 40; // so many windows wide at least, however few candles there are
const STORED_AFTER_MS = 2500;
const SILENT_MS_MAX = 8000;
const OPEN_FIELDS = ["open", "high", "low", "close", "volume"];
const NARROW_PX = 700; // as in page.css
const DURATIONS_US = { s: 1e6, m: 6e7, h: 3.6e9, d: 8.64e10, w: 6.048e11 };
const chosen = new URLSearchParams(location.hash.slice(1));
const shown = (id) => document.getElementById(id);
let candles = null;
let gaps = new Map();
let socket = null;
let generation = 0; // what belongs to an older choice is thrown away
let waitMs = 500;
let drawn = Promise.resolve();
let drawing = false;
let heardAt = 0; // of the last message; 0: history is not there yet

const durationOf = (timeframe) => Number(timeframe.slice(0, -1)) * DURATIONS_US[timeframe.slice(-1)];
const chart = () => new URLSearchParams({
  exchange: chosen.get("exchange"), symbol: chosen.get("symbol"), timeframe: chosen.get("timeframe"),
});

async function get(path, parameters) {
  const response = await fetch(`${path}?${parameters ?? ""}`);
  const body = await response.json();
  if (!response.ok) throw new Error(body.error);
  return body;
}

function say(text, kind) {
  shown("connection").textContent = text;
  shown("connection").className = kind;
}

// Nothing from outside ever becomes markup: text only.
function row(body, cells, className) {
  const line = body.insertRow();
  line.className = className ?? "";
  for (const [text, kind] of cells) {
    const cell = line.insertCell();
    cell.textContent = text;
    cell.className = kind ?? "";
  }
  return line;
}

async function start() {
  try {
    const { timeframes, markets } = await get("api/markets");
    if (!markets.length) throw new Error("waiting for the first trades");
    const first = markets[0];
    if (!markets.some((m) => m.exchange === chosen.get("exchange") && m.symbol === chosen.get("symbol"))) {
      chosen.set("exchange", first.exchange);
      chosen.set("symbol", first.symbol);
    }
    if (!timeframes.includes(chosen.get("timeframe"))) chosen.set("timeframe", "1m");
    shown("timeframe").replaceChildren(...timeframes.map((name) => new Option(name, name)));
    shown("timeframe").value = chosen.get("timeframe");
    showMarkets(markets);
    choose({});
  } catch (error) {
    say(error.message, "connecting");
    setTimeout(start, 1000);
  }
}

function choose(changes) {
  for (const [name, value] of Object.entries(changes)) chosen.set(name, value);
  history.replaceState(null, "", `#${chart()}`);
  document.title = `${chosen.get("symbol")} ${chosen.get("timeframe")} AlphaPulse`;
  generation += 1;
  candles = new Candles(chosen.get("timeframe"), durationOf(chosen.get("timeframe")), COUNT);
  gaps = new Map();
  heardAt = 0;
  follow(generation);
}

// The socket first, then history: nothing falls between the two.
function follow(mine) {
  socket?.close();
  socket = new WebSocket(`ws://${location.host}/api/live?${chart()}`);
  socket.onopen = () => { if (mine === generation) load(mine); };
  socket.onmessage = (message) => {
    if (mine !== generation) return;
    const event = JSON.parse(message.data);
    if (heardAt) heardAt = Date.now();
    if (event.markets) showMarkets(event.markets);
    if (event.reload) load(mine);
    for (const candle of event.candles ?? []) candles.put(candle);
    if (event.candles?.some((candle) => candles.completes(candle))) {
      setTimeout(() => { if (mine === generation) load(mine); }, STORED_AFTER_MS);
    }
    for (const gap of event.gaps ?? []) putGap(gap);
    if (event.gaps?.length) showGaps();
    if (event.candles?.length) draw();
  };
  socket.onclose = () => {
    if (mine !== generation) return;
    heardAt = 0;
    say("reconnecting", "disconnected");
    setTimeout(() => { if (mine === generation) follow(mine); }, waitMs);
    waitMs = Math.min(waitMs * 2, 10_000);
  };
}

async function load(mine, attempt = 1) {
  try {
    const parameters = chart();
    const [history, missing] = await Promise.all([
      get("api/candles", `${parameters}&count=${COUNT}`), get("api/gaps", parameters),
    ]);
    if (mine !== generation) return;
    candles.load(history.candles);
    for (const gap of missing.gaps) putGap(gap);
    say("live", "live");
    heardAt = Date.now();
    waitMs = 500;
    showGaps();
    draw();
    if (candles.hasHole() && attempt < 5) {
      setTimeout(() => { if (mine === generation) load(mine, attempt + 1); }, attempt * STORED_AFTER_MS);
    }
  } catch (error) {
    if (mine !== generation) return;
    heardAt = 0;
    say(error.message, "disconnected");
    setTimeout(() => { if (mine === generation) load(mine); }, 2000);
  }
}

function putGap(gap) {
  gaps.set(`${gap.start_time_us} ${gap.first_trade_id}`, gap);
}

function showMarkets(markets) {
  const body = shown("markets").tBodies[0];
  const options = markets.map((m) => new Option(`${m.symbol} ${m.exchange}`, `${m.exchange} ${m.symbol}`));
  if (shown("market").options.length !== options.length) shown("market").replaceChildren(...options);
  shown("market").value = `${chosen.get("exchange")} ${chosen.get("symbol")}`;
  body.replaceChildren();
  for (const market of markets) {
    const isChosen = market.exchange === chosen.get("exchange") && market.symbol === chosen.get("symbol");
    const line = row(body, [
      [`${market.symbol} ${market.exchange}`],
      stateOf(market),
      [market.rate.toFixed(1), "n"],
      [market.trade_age_s === null ? "" : ago(market.trade_age_s), "n spare"],
      [short(market.close ?? ""), "n"],
      [market.coverage ?? "", market.coverage ?? ""],
      [String(market.open_gaps), market.open_gaps ? "n spare open" : "n spare"],
      [String(market.lost_gaps), market.lost_gaps ? "n spare lost" : "n spare"],
    ], isChosen ? "chosen" : "");
    line.onclick = () => choose({ exchange: market.exchange, symbol: market.symbol });
  }
}

// The first word on a stream's state comes when it changes or falls quiet.
function stateOf(market) {
  if (market.state) return [market.state, market.state];
  return market.rate > 0 ? ["trading", "live"] : ["no word yet", "connecting"];
}

function ago(seconds) {
  if (seconds < 120) return `${seconds.toFixed(1)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

function showGaps() {
  const body = shown("gaps").tBodies[0];
  body.replaceChildren();
  const newest = [...gaps.values()].sort((a, b) => b.start_time_us - a.start_time_us).slice(0, 50);
  for (const gap of newest) {
    const ids = gap.first_trade_id === null ? "not known" : `${gap.first_trade_id} to ${gap.last_trade_id}`;
    row(body, [
      [new Date(gap.start_time_us / 1000).toISOString().slice(0, 19).replace("T", " ")],
      [ago((gap.end_time_us - gap.start_time_us) / 1e6), "n"], [ids], [gap.status, gap.status], [gap.reason],
    ]);
  }
  shown("gaps").hidden = !newest.length;
  shown("no-gaps").hidden = newest.length > 0;
}

// The exchange's digits without the zeros that say nothing: 59478.59000000 is 59478.59.
const short = (decimal) => (decimal.includes(".") ? decimal.replace(/\.?0+$/, "") : decimal);

function field(name, text) {
  const [both, label] = ["span", "b"].map((tag) => document.createElement(tag));
  label.textContent = name;
  both.append(label, ` ${text}`);
  return both;
}

function draw() {
  if (drawing) return;
  drawing = true;
  // One drawing at a time; what came meanwhile is in the next one.
  drawn = drawn.then(() => new Promise(requestAnimationFrame)).then(() => {
    drawing = false;
    return drawNow();
  });
}

function drawNow() {
  const all = candles.all();
  const open = candles.opened();
  shown("open-candle").replaceChildren(...(open ? OPEN_FIELDS.map((name) => field(name, short(open[name]))) : ["no open candle"]));
  shown("open-candle").dataset.close = open?.close ?? "";
  if (!all.length) return Plotly.purge(shown("chart"));
  const duration = durationOf(chosen.get("timeframe")) / 1000;
  const last = all.at(-1).open_time_us / 1000;
  const count = Math.min(COUNT, Math.max(COUNT_LEAST, (last - all[0].open_time_us / 1000) / duration));
  const first = last - count * duration;
  const missing = [...gaps.values()].filter((gap) => gap.status !== "filled" && gap.end_time_us / 1000 > first);
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(`--${name}`).trim();
  const narrow = window.innerWidth <= NARROW_PX;
  const label = (text, y) => ({
    text, y, x: 1, xref: "paper", yref: "paper", xanchor: "left", xshift: 4, showarrow: false, font: { size: 10 },
  });
  return Plotly.react(shown("chart"), tracesOf(all, color), {
    // The reader's own zoom stays until another chart is chosen.
    uirevision: `${chart()}`,
    paper_bgcolor: color("back"), plot_bgcolor: color("back"), font: { color: color("dim"), size: 11 },
    margin: { l: 10, r: 70, t: 30, b: 30 }, annotations: [label("coverage", 0.015)], bargap: 0.3, hovermode: "x", dragmode: "pan",
    legend: { orientation: "h", x: 0, y: 1.06 },
    xaxis: {
      type: "date", rangeslider: { visible: false }, gridcolor: color("grid"),
      anchor: "free", position: 0, range: [first - duration, last + 3 * duration].map((ms) => new Date(ms).toISOString()),
    },
    yaxis: { side: "right", domain: [0.27, 1], gridcolor: color("grid"), tickformat: "f", automargin: true },
    yaxis2: { side: "right", domain: [0.06, 0.24], gridcolor: color("grid"), nticks: 3 },
    yaxis3: { domain: [0, 0.03], visible: false, fixedrange: true, range: [0, 1] },
    shapes: missing.map((gap) => ({
      type: "rect", yref: "paper", y0: 0, y1: 1, fillcolor: color("pink"), opacity: 0.14, line: { width: 0 },
      x0: new Date(gap.start_time_us / 1000).toISOString(), x1: new Date(gap.end_time_us / 1000).toISOString(),
    })),
  }, { responsive: true, displaylogo: false, displayModeBar: narrow ? false : "hover", scrollZoom: true, modeBarButtonsToRemove: ["select2d", "lasso2d"] });
}

// News comes every two seconds at least; without any, what is shown is old, and says so.
setInterval(() => {
  if (!heardAt) return;
  const silentMs = Date.now() - heardAt;
  if (silentMs > SILENT_MS_MAX) say(`no news for ${ago(silentMs / 1000)}`, "disconnected");
  else say("live", "live");
}, 1000);

matchMedia("(prefers-color-scheme: light)").onchange = () => { if (candles) draw(); };
shown("market").onchange = (event) => {
  const [exchange, symbol] = event.target.value.split(" ");
  choose({ exchange, symbol });
};
shown("timeframe").onchange = (event) => choose({ timeframe: event.target.value });
start();
