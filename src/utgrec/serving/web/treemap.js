// Lay weights out as tiles that fill a box, in their own order, row after row, so that neighbours in
// the order stay neighbours on the map. Of all ways to cut the order into rows, the one with the
// tiles nearest to a good shape is taken.

const GOOD_SHAPE = 1.4; // width over height: room for words beside or above a picture
const LONGEST_ROW = 40;

/**
 * Rectangles {x, y, width, height} of weights, in the same order. Areas are as the weights, except
 * where a tile would be narrower than `least` pixels.
 */
export function layout(weights, width, height, least = 0) {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  if (!total || width <= 0 || height <= 0)
    return weights.map(() => ({ x: 0, y: 0, width: 0, height: 0 }));
  const areas = weights.map((weight) => (weight * width * height) / total);
  const found = [];
  let y = 0;
  for (const [first, last] of rows(areas, width, least)) {
    const row = areas.slice(first, last);
    const rowHeight = row.reduce((sum, area) => sum + area, 0) / width;
    let x = 0;
    for (const tile of widen(
      row.map((area) => area / rowHeight),
      width,
      least,
    )) {
      found.push({ x, y, width: tile, height: rowHeight });
      x += tile;
    }
    y += rowHeight;
  }
  return found;
}

/** The cut into rows [first, last) of least cost, by dynamic programming over where rows end. */
function rows(areas, width, least) {
  const longest = least
    ? Math.max(1, Math.min(LONGEST_ROW, Math.floor(width / least)))
    : LONGEST_ROW;
  const costs = [0, ...areas.map(() => Infinity)];
  const begins = [0];
  for (let last = 1; last <= areas.length; last++) {
    let sum = 0;
    for (let first = last - 1; first >= Math.max(0, last - longest); first--) {
      sum += areas[first];
      const cost = costs[first] + shape(areas, first, last, sum / width);
      if (cost < costs[last]) [costs[last], begins[last]] = [cost, first];
    }
  }
  const found = [];
  for (let last = areas.length; last > 0; last = begins[last]) found.unshift([begins[last], last]);
  return found;
}

/** How far the tiles of a row are from a good shape; large ones count more. */
function shape(areas, first, last, rowHeight) {
  let far = 0;
  for (let place = first; place < last; place++) {
    far +=
      Math.sqrt(areas[place]) * Math.log(areas[place] / (rowHeight * rowHeight * GOOD_SHAPE)) ** 2;
  }
  return far;
}

/** Widths of a row with none below the least; the wider ones give what it takes. */
function widen(widths, width, least) {
  const low = Math.min(least, width / widths.length);
  const spare = widths.reduce((sum, one) => sum + Math.max(0, one - low), 0);
  const missing = widths.reduce((sum, one) => sum + Math.max(0, low - one), 0);
  return widths.map((one) =>
    one < low ? low : one - (spare ? (missing * (one - low)) / spare : 0),
  );
}

/** Weights with a floor, so that each tile has at least `least` of the box's area. */
export function withFloor(weights, least, area) {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const floor = Math.min((least / area) * total, total / Math.max(1, weights.length));
  return weights.map((weight) => Math.max(weight, floor));
}

/** The tile to go to from one, in a direction; its own place if there is none. */
export function neighbour(tiles, from, key) {
  const centre = (tile) => [tile.x + tile.width / 2, tile.y + tile.height / 2];
  const [x, y] = centre(tiles[from]);
  let best = from;
  let least = Infinity;
  tiles.forEach((tile, place) => {
    const [tx, ty] = centre(tile);
    const [dx, dy] = [tx - x, ty - y];
    const along = { ArrowRight: dx, ArrowLeft: -dx, ArrowDown: dy, ArrowUp: -dy }[key];
    const aside = key === "ArrowRight" || key === "ArrowLeft" ? Math.abs(dy) : Math.abs(dx);
    if (place === from || along <= 1) return;
    const cost = along + 2.5 * aside;
    if (cost < least) [best, least] = [place, cost];
  });
  return best;
}
