// A small chart that moves: records of the last two minutes as bars, a number's course as a line.
// SVG by hand: no library, nothing inline; colours come from the style sheet.

const SPAN_S = 120;
const BARS = 40;
const WIDTH = 200;
const HEIGHT = 36;
const NS = "http://www.w3.org/2000/svg";

function element(name, attributes) {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

export class Chart {
  constructor(place) {
    this.svg = element("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: WIDTH, height: HEIGHT, role: "img",
      class: "chart", preserveAspectRatio: "none",
    });
    this.bars = element("path", { class: "bars" });
    this.line = element("polyline", { class: "line", fill: "none" });
    this.svg.append(this.bars, this.line);
    place.replaceChildren(this.svg);
  }

  // points: [[µs, device, values], …]; field: which value makes the line, -1 for none.
  // Returns how many records lie in the span.
  draw(points, field, nowUs, label) {
    const start = nowUs / 1e6 - SPAN_S;
    const counts = new Array(BARS).fill(0);
    const course = [];
    let inside = 0;
    for (const [us, , values] of points) {
      const s = us / 1e6 - start;
      if (s < 0 || s > SPAN_S) continue;
      inside += 1;
      counts[Math.min(BARS - 1, Math.floor((s / SPAN_S) * BARS))] += 1;
      const one = field < 0 ? null : values[field];
      if (typeof one === "number") course.push([s, one]);
    }
    const most = Math.max(1, ...counts);
    const step = WIDTH / BARS;
    this.bars.setAttribute("d", counts.map((n, at) => {
      if (!n) return "";
      const height = Math.max(2, (n / most) * (HEIGHT - 2));
      return `M${(at * step).toFixed(1)} ${HEIGHT}v-${height.toFixed(1)}h${(step - 1).toFixed(1)}v${height.toFixed(1)}z`;
    }).join(""));
    course.sort((a, b) => a[0] - b[0]);
    const numbers = course.map(([, n]) => n);
    const low = Math.min(...numbers);
    const range = Math.max(...numbers) - low || 1;
    this.line.setAttribute("points", course.length < 2 ? "" : course.map(([s, n]) => {
      const y = HEIGHT - 3 - ((n - low) / range) * (HEIGHT - 6);
      return `${((s / SPAN_S) * WIDTH).toFixed(1)},${y.toFixed(1)}`;
    }).join(" "));
    this.svg.setAttribute("aria-label", label(inside));
    return inside;
  }
}
