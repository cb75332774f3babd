/* Starts the chart; vegaEmbed comes from the bundle that this is part of. Expressions are interpreted, not compiled,
   since the page's policy lets no text become code. */
const spec = JSON.parse(document.getElementById("spec").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
let shown = null;

/* On a phone the views stand below one another, as wide as the screen, and the timeline has names of its own. */
const NARROW = 700;
const WIDE_VIEW = 520;
const NAMES = 110;
const TICK = 65;
function fold(view) {
  if (view.hconcat) {
    view.vconcat = view.hconcat;
    delete view.hconcat;
  }
  view.vconcat?.forEach(fold);
  if (view.vconcat) view.align = "none";
  if (view.width === WIDE_VIEW) view.width = Math.max(200, window.innerWidth - 90);
  if (view.name === "timeline") {
    const { y, color, shape } = view.encoding;
    color.legend.columns = shape.legend.columns = 3;
    const label = "data('deployments')[datum.value].label";
    Object.assign(y.axis, { orient: "right", labels: true, labelExpr: label, labelLimit: NAMES, labelPadding: 6 });
    y.axis.maxExtent = NAMES;
    view.width -= NAMES;
  }
  const axis = view.encoding?.x?.axis;
  if (axis?.tickCount) axis.tickCount = Math.floor(view.width / TICK);
}
if (window.innerWidth < NARROW) fold(spec);

async function show() {
  shown?.finalize();
  document.getElementById("controls").replaceChildren();
  shown = await vegaEmbed("#chart", spec, {
    ast: true,
    renderer: "canvas",
    theme: dark.matches ? "dark" : undefined,
    config: { text: { color: dark.matches ? "#e8e6e1" : "#1d2226" } },
    bind: "#controls",
    defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
    logLevel: 1,
    loader: { load: () => Promise.reject(new Error("this page asks for nothing")) },
  });
  // Vega makes the file when the mouse is pressed on the link, but not for the Enter key.
  for (const link of document.querySelectorAll(".vega-actions a"))
    link.addEventListener("focus", () => link.dispatchEvent(new MouseEvent("mousedown")));
  window.view = shown.view; // for the browser's console
}

dark.addEventListener("change", show);
show();
