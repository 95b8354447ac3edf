// SPDX-License-Identifier: BSD-2-Clause
//! Loss and latency of each lane over time, as a picture: PNG or SVG.
//!
//! ```text
//!   title, and a legend
//!   round trip, ms │  a line for each path and one for the tunnel; outages shaded
//!   one            │  ▁   ▁█████▁   red: the share of rounds without an answer
//!   tunnel         │
//!                  └─ seconds
//! ```
//!
//! The font comes with the program: a fresh machine has none.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Once;
use std::time::Duration;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::register_font;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::record::{Fate, Record};
use super::screen::{millis, per_cent, seconds};
use crate::terminal;
use crate::terminal::shortened;

/// A file for a picture, of a kind that its name tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Plot {
    file: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Png,
    Svg,
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlotError {
    #[error("cannot write {}", file.display())]
    Write { file: PathBuf, source: io::Error },
    #[error("cannot draw: {0}")]
    Draw(String),
}

impl FromStr for Plot {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Plot, &'static str> {
        let file = PathBuf::from(name);
        let extension = file.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        let kind = match extension.as_deref() {
            Some("png") => Kind::Png,
            Some("svg") => Kind::Svg,
            _ => return Err("expected a name that ends in .png or .svg"),
        };
        Ok(Plot { file, kind })
    }
}

impl Plot {
    /// Makes sure that the file can be written, before hours are spent on what goes into it.
    pub(crate) fn check(&self) -> Result<(), PlotError> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.file)
            .map(drop)
            .map_err(self.failed())
    }

    /// Draws the record and writes the file.
    pub(crate) fn write(
        &self,
        record: &Record,
        interval: Duration,
        now: Duration,
    ) -> Result<(), PlotError> {
        let size = size_for(record.lanes.len());
        match self.kind {
            Kind::Svg => {
                let mut text = String::new();
                draw(SVGBackend::with_string(&mut text, size), record, interval, now)?;
                std::fs::write(&self.file, text).map_err(self.failed())
            }
            Kind::Png => {
                let mut pixels = vec![0; 3 * size.0 as usize * size.1 as usize];
                draw(BitMapBackend::with_buffer(&mut pixels, size), record, interval, now)?;
                write_png(&self.file, size, &pixels).map_err(self.failed())
            }
        }
    }

    /// The file, for messages.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> PlotError {
        let file = self.file.clone();
        move |source| PlotError::Write { file, source }
    }
}

fn write_png(file: &Path, (width, height): (u32, u32), pixels: &[u8]) -> io::Result<()> {
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(file)?), width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    Ok(writer.finish()?)
}

/// Pixels of the picture: a strip more for each lane.
fn size_for(lanes: usize) -> (u32, u32) {
    let lanes = u32::try_from(lanes).unwrap_or(u32::MAX).min(64);
    (WIDTH, HEAD + LATENCY + STRIP * lanes + FOOT)
}

fn draw<B: DrawingBackend>(
    backend: B,
    record: &Record,
    interval: Duration,
    now: Duration,
) -> Result<(), PlotError> {
    use_own_font();
    let picture = Picture::of(record, interval, now);
    let root = backend.into_drawing_area();
    picture.draw(&root).map_err(|error| PlotError::Draw(error.to_string()))
}

fn use_own_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Whoever has no font sees what is drawn, without text: nothing to end a measurement for.
        let _ = register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT);
    });
}

/// What is to be drawn.
struct Picture<'a> {
    record: &'a Record,
    interval: Duration,
    now: Duration,
    /// From the first round to the end, in units of the axis.
    span: f64,
    /// Seconds in a unit of the axis, and its name.
    unit: (f64, &'static str),
    /// Milliseconds at the top of the latencies.
    top: f64,
    /// Whether there are longer ones.
    cut_at_top: bool,
    columns: usize,
    /// Pixels left of the axes: room for the names.
    left: u32,
}

/// The rounds of a column of pixels, on one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Column {
    /// Where it begins and ends, in units of the axis.
    from: f64,
    until: f64,
    answered: usize,
    lost: usize,
    min: f64,
    max: f64,
}

type Chart<'a, B> = ChartContext<'a, B, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

impl Picture<'_> {
    fn of(record: &Record, interval: Duration, now: Duration) -> Picture<'_> {
        let last = record.len().checked_sub(1).map_or(Duration::ZERO, |last| record.asked(last));
        let span = (last + interval).as_secs_f64();
        let unit = match span {
            ..600.0 => (1.0, "seconds"),
            ..18_000.0 => (60.0, "minutes"),
            _ => (3_600.0, "hours"),
        };
        let mut all: Vec<f32> = (0..record.lanes.len())
            .flat_map(|lane| (0..record.len()).map(move |round| (lane, round)))
            .filter_map(|(lane, round)| match record.fate(lane, round, now) {
                Fate::Answered(ms) => Some(ms),
                _ => None,
            })
            .collect();
        all.sort_unstable_by(f32::total_cmp);
        let longest = all.last().copied().map_or(1.0, f64::from);
        // One answer that came seconds late must not press all others to the ground.
        let most = all.get(all.len() * 98 / 100).copied().map_or(1.0, f64::from);
        let cut_at_top = longest > 3.0 * most;
        let top = if cut_at_top { 2.0 * most } else { 1.08 * longest };
        let columns = record.len().clamp(1, COLUMNS);
        let (span, top) = (span / unit.0, top.max(0.1));
        let longest = record.lanes.iter().map(|lane| columns_of(&lane.name)).max().unwrap_or(0);
        let left = (longest * CHARACTER + 24).clamp(LEFT.start, LEFT.end);
        Picture { record, interval, now, span, unit, top, cut_at_top, columns, left }
    }

    /// A time at the axis.
    fn x(&self, time: Duration) -> f64 {
        (time.as_secs_f64() / self.unit.0).min(self.span)
    }

    fn draw<B: DrawingBackend>(&self, root: &DrawingArea<B, Shift>) -> Drawn<B> {
        root.fill(&WHITE)?;
        self.draw_head(root)?;
        let (_, rest) = root.split_vertically(HEAD);
        let (latency, strips) = rest.split_vertically(LATENCY);
        self.draw_latency(&latency)?;
        self.draw_strips(&strips)?;
        root.present()
    }

    fn draw_head<B: DrawingBackend>(&self, root: &DrawingArea<B, Shift>) -> Drawn<B> {
        let paths = self.record.lanes.len() - 1;
        let title = format!(
            "mptunnel ping: {paths} path{} and the tunnel, {} rounds, one every {}",
            if paths == 1 { "" } else { "s" },
            self.record.len(),
            seconds(self.interval)
        );
        let left = self.left as i32;
        root.draw(&Text::new(title, (left, 16), font(22)))?;
        // The legend, with the tunnel first; what does not fit stands at the strips.
        let mut x = left;
        for number in std::iter::once(paths).chain(0..paths) {
            let name = shortened(&self.record.lanes[number].name, 24);
            let (width, _) = root.estimate_text_size(&name, &font(15))?;
            let end = x + 28 + width as i32;
            if end > (WIDTH - RIGHT) as i32 {
                break;
            }
            let style = self.colour(number).stroke_width(self.stroke(number));
            root.draw(&PathElement::new([(x, 58), (x + 22, 58)], style))?;
            root.draw(&Text::new(name, (x + 28, 58), left_of(font(15))))?;
            x = end + 22;
        }
        Ok(())
    }

    fn draw_latency<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn<B> {
        let mut chart = ChartBuilder::on(area)
            .set_label_area_size(LabelAreaPosition::Left, AXIS)
            .margin_left(self.left - AXIS)
            .margin_right(RIGHT)
            .margin_top(8)
            .margin_bottom(10)
            .build_cartesian_2d(0.0..self.span, 0.0..self.top)?;
        for (number, lane) in self.record.lanes.iter().enumerate().take(self.tunnel()) {
            // Of a path that never answered, its strip says so: the shade of all of the picture
            // would hide the outages of the others.
            let answered = self.record.summary(number, self.now).answered > 0;
            for outage in lane.outages.iter().filter(|_| answered) {
                let until = self.x(outage.until.unwrap_or(self.now));
                let corners = [(self.x(outage.from), 0.0), (until, self.top)];
                let shade = self.colour(number).mix(0.13).filled();
                chart.draw_series([Rectangle::new(corners, shade)])?;
            }
        }
        let what =
            if self.cut_at_top { "round trip, ms (cut at the top)" } else { "round trip, ms" };
        chart
            .configure_mesh()
            .y_desc(what)
            .y_labels(8)
            .x_labels(10)
            .y_label_formatter(&|ms| axis_number(*ms, self.top))
            .axis_desc_style(font(16))
            .label_style(font(14))
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .draw()?;
        // The tunnel lies below, so that the path which it follows shows on it.
        self.draw_line(&mut chart, self.tunnel())?;
        (0..self.tunnel()).try_for_each(|lane| self.draw_line(&mut chart, lane))
    }

    /// The latency of a lane, broken where nothing was answered.
    fn draw_line<B: DrawingBackend>(&self, chart: &mut Chart<'_, B>, lane: usize) -> Drawn<B> {
        let style = self.colour(lane).stroke_width(self.stroke(lane));
        let columns = self.columns(lane, self.columns);
        for run in columns.split(|column| column.answered == 0) {
            let points: Vec<(f64, f64)> = run
                .iter()
                .flat_map(|column| [(column.from, column.min), (column.from, column.max)])
                .map(|(x, ms)| (x, ms.min(self.top)))
                .collect();
            match points[..] {
                [] => {}
                // A single answer between losses.
                [point, _] => {
                    let radius = self.stroke(lane);
                    chart.draw_series([Circle::new(point, radius, style.filled())])?;
                }
                _ => drop(chart.draw_series(LineSeries::new(points, style))?),
            }
        }
        Ok(())
    }

    fn draw_strips<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn<B> {
        let lanes = self.record.lanes.len();
        let mut chart = ChartBuilder::on(area)
            .set_label_area_size(LabelAreaPosition::Left, self.left)
            .set_label_area_size(LabelAreaPosition::Bottom, FOOT - 14)
            .margin_right(RIGHT)
            .build_cartesian_2d(0.0..self.span, 0.0..lanes as f64)?;
        let what = format!(
            "{} since the start (red: share of rounds without an answer; shaded: outage of a path)",
            self.unit.1
        );
        chart
            .configure_mesh()
            .disable_mesh()
            .disable_y_axis()
            .x_desc(what)
            .x_labels(10)
            .x_label_formatter(&|x| axis_number(*x, self.span))
            .axis_desc_style(font(16))
            .label_style(font(14))
            .draw()?;
        let summaries: Vec<_> =
            (0..lanes).map(|lane| self.record.summary(lane, self.now)).collect();
        for (lane, summary) in summaries.iter().enumerate() {
            // From above to below.
            let floor = (lanes - lane) as f64 - 0.88;
            let whole = floor..floor + 0.76;
            let back = [(0.0, whole.start), (self.span, whole.end)];
            chart.draw_series([Rectangle::new(back, BACKGROUND.filled())])?;
            self.draw_loss(&mut chart, lane, &whole)?;
            let middle = (whole.start + whole.end) / 2.0;
            let (left, y) = chart.backend_coord(&(0.0, middle));
            let (right, _) = chart.backend_coord(&(self.span, middle));
            let room = (self.left - 24) / CHARACTER;
            let name = shortened(&self.record.lanes[lane].name, room as usize);
            let colour = self.colour(lane);
            let colour = font(15).color(&colour);
            let to_the_left = colour.pos(Pos::new(HPos::Right, VPos::Center));
            let root = area.strip_coord_spec();
            let (x0, y0) = area.get_base_pixel();
            root.draw(&Text::new(name, (left - x0 - 8, y - y0), to_the_left))?;
            let average = summary.times.map(|times| format!(", avg {} ms", millis(times.avg)));
            let text = format!("{} lost{}", per_cent(summary.loss()), average.unwrap_or_default());
            root.draw(&Text::new(text, (right - x0 + 8, y - y0), left_of(font(14))))?;
        }
        Ok(())
    }

    /// The losses of a lane, as columns that fill the strip where nothing was answered, and the
    /// length of each outage that has room for it.
    fn draw_loss<B: DrawingBackend>(
        &self,
        chart: &mut Chart<'_, B>,
        lane: usize,
        whole: &Range<f64>,
    ) -> Drawn<B> {
        let count = self.columns.min(LOSS_COLUMNS);
        let height = whole.end - whole.start;
        let bars = self.columns(lane, count).into_iter().filter(|column| column.lost > 0);
        let bars = bars.map(|column| {
            let share = column.lost as f64 / (column.lost + column.answered) as f64;
            let top = whole.start + height * share.max(LEAST_BAR);
            Rectangle::new([(column.from, whole.start), (column.until, top)], LOST.filled())
        });
        chart.draw_series(bars)?;
        let middle = (whole.start + whole.end) / 2.0;
        for outage in &self.record.lanes[lane].outages {
            let (from, until) = (outage.from, outage.until.unwrap_or(self.now));
            let (begin, end) = (self.x(from), self.x(until));
            let (left, _) = chart.backend_coord(&(begin, middle));
            let (right, _) = chart.backend_coord(&(end, middle));
            if right - left > 48 {
                let centre = Pos::new(HPos::Center, VPos::Center);
                let style = font(14).color(&WHITE).pos(centre);
                let at = ((begin + end) / 2.0, middle);
                chart.draw_series([Text::new(seconds(until.saturating_sub(from)), at, style)])?;
            }
        }
        Ok(())
    }

    /// The rounds of a lane in at most `count` columns of equally many.
    fn columns(&self, lane: usize, count: usize) -> Vec<Column> {
        let rounds = self.record.len();
        let first = |column: usize| column * rounds / count;
        let at = |round: usize| match round < rounds {
            true => self.x(self.record.asked(round)),
            false => self.span,
        };
        let count_in = |number: usize| {
            let rounds = first(number)..first(number + 1);
            let (from, until) = (at(rounds.start), at(rounds.end));
            let mut column = Column { from, until, min: f64::INFINITY, ..Column::default() };
            for round in rounds {
                match self.record.fate(lane, round, self.now) {
                    Fate::Answered(ms) => {
                        let ms = f64::from(ms);
                        (column.min, column.max) = (column.min.min(ms), column.max.max(ms));
                        column.answered += 1;
                    }
                    Fate::Lost => column.lost += 1,
                    Fate::Pending => {}
                }
            }
            column
        };
        (0..count).map(count_in).filter(|column| column.answered + column.lost > 0).collect()
    }

    fn tunnel(&self) -> usize {
        self.record.lanes.len() - 1
    }

    fn colour(&self, lane: usize) -> RGBAColor {
        if lane == self.tunnel() {
            return BLACK.mix(0.75);
        }
        PALETTE[lane % PALETTE.len()].to_rgba()
    }

    fn stroke(&self, lane: usize) -> u32 {
        if lane == self.tunnel() { 5 } else { 2 }
    }
}

fn columns_of(name: &str) -> u32 {
    u32::try_from(terminal::columns(name)).unwrap_or(u32::MAX / CHARACTER).min(1_000)
}

fn font<'a>(size: u32) -> TextStyle<'a> {
    (FONT, size).into_text_style(&(WIDTH, WIDTH)).color(&INK)
}

fn left_of(style: TextStyle<'_>) -> TextStyle<'_> {
    style.pos(Pos::new(HPos::Left, VPos::Center))
}

/// A number at an axis that goes up to `top`.
fn axis_number(value: f64, top: f64) -> String {
    match top {
        ..1.0 => format!("{value:.2}"),
        ..8.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

const FONT: &str = "sans-serif";

/// Pixels.
const WIDTH: u32 = 1200;
const HEAD: u32 = 76;
const LATENCY: u32 = 400;
const STRIP: u32 = 34;
const FOOT: u32 = 70;
const LEFT: Range<u32> = 120..300;
/// The width of a character of a name, on average.
const CHARACTER: u32 = 8;
/// Of these, for the numbers at the left axis and what they mean.
const AXIS: u32 = 64;
const RIGHT: u32 = 190;
/// More columns than these are no wider than a pixel or two.
const COLUMNS: usize = 860;
/// Wide enough to see the colour of.
const LOSS_COLUMNS: usize = 215;
/// The least height of a loss, as a share of the strip: one that cannot be seen would be a lie.
const LEAST_BAR: f64 = 0.12;

const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);
const BACKGROUND: RGBColor = RGBColor(240, 242, 240);
const LOST: RGBColor = RGBColor(200, 30, 40);
/// Colours that people who see fewer of them can tell apart (Okabe and Ito, "Color Universal
/// Design", 2008), without its yellow, which white swallows, and without red, which is loss here.
const PALETTE: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(140, 90, 40),
];

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(100);

    /// Two paths, of which the second one is silent in the middle third.
    fn record(rounds: u32) -> Record {
        let mut record = Record::new(["one".to_owned(), "two".to_owned()], STEP);
        for round in 0..rounds {
            let at = STEP * round;
            record.ask(at);
            for lane in [0, 1, 2] {
                if lane != 1 || !(rounds / 3..2 * rounds / 3).contains(&round) {
                    let ms = 10 + 30 * (lane as u64 % 2) + u64::from(round % 7);
                    record.answer(lane, at, Duration::from_millis(ms));
                }
            }
        }
        record.watch(STEP * (rounds + 20));
        record
    }

    fn picture(record: &Record) -> Picture<'_> {
        Picture::of(record, STEP, STEP * (record.len() as u32 + 20))
    }

    #[test]
    fn the_name_of_the_file_tells_its_kind() {
        assert_eq!("a/b.PNG".parse::<Plot>().unwrap().kind, Kind::Png);
        assert_eq!("b.svg".parse::<Plot>().unwrap().kind, Kind::Svg);
        assert!("b.gif".parse::<Plot>().is_err() && "png".parse::<Plot>().is_err());
    }

    #[test]
    fn rounds_come_together_in_columns_and_none_gets_lost() {
        let record = record(3_000);
        let picture = picture(&record);

        for count in [1, 7, 860] {
            let columns = picture.columns(1, count);
            let sum = |of: fn(&Column) -> usize| columns.iter().map(of).sum::<usize>();
            assert_eq!((sum(|c| c.answered), sum(|c| c.lost)), (2_000, 1_000));
            assert!(columns.windows(2).all(|pair| pair[0].until == pair[1].from), "no gaps");
            assert_eq!(columns.last().unwrap().until, picture.span);
        }
    }

    #[test]
    fn an_answer_that_is_very_late_does_not_press_the_others_down() {
        let mut record = record(300);
        assert!(!picture(&record).cut_at_top);

        record.answer(1, STEP * 150, Duration::from_secs(5));

        let picture = picture(&record);
        assert!(picture.cut_at_top && picture.top < 100.0, "{}", picture.top);
    }

    #[test]
    fn a_picture_names_what_it_shows() {
        let record = record(60);
        let mut svg = String::new();
        let size = size_for(3);
        draw(SVGBackend::with_string(&mut svg, size), &record, STEP, STEP * 80).unwrap();

        for text in
            ["2 paths and the tunnel, 60 rounds", "round trip, ms", "seconds since the start"]
        {
            assert!(svg.contains(text), "{text}");
        }
        // In the legend and at its strip.
        assert_eq!(svg.matches("\ntwo\n").count(), 2, "{svg}");
        assert!(svg.contains("\n2.0 s\n") && svg.contains("33.3 % lost"), "the outage");
    }

    #[test]
    fn an_outage_is_shaded_unless_the_path_never_answered() {
        let shades = |record: &Record| {
            let mut svg = String::new();
            let size = size_for(3);
            draw(SVGBackend::with_string(&mut svg, size), record, STEP, STEP * 80).unwrap();
            svg.matches("opacity=\"0.13\"").count()
        };
        let mut dead = Record::new(["one", "dead"].map(str::to_owned), STEP);
        for round in 0..60 {
            dead.ask(STEP * round);
            for lane in [0, 2] {
                dead.answer(lane, STEP * round, Duration::from_millis(12));
            }
        }
        dead.watch(STEP * 80);

        assert_eq!((dead.lanes[1].outages.len(), shades(&dead)), (1, 0));
        assert_eq!(shades(&record(60)), 1);
    }

    #[test]
    fn next_to_nothing_can_be_drawn_as_well() {
        for rounds in [0, 1, 2] {
            let mut record = Record::new([], STEP);
            (0..rounds).for_each(|round| record.ask(STEP * round));
            let mut pixels = vec![0; 3 * (WIDTH * size_for(1).1) as usize];

            let backend = BitMapBackend::with_buffer(&mut pixels, size_for(1));
            draw(backend, &record, STEP, STEP * 50).unwrap();

            assert!(pixels.contains(&255) && pixels.contains(&40));
        }
    }
}
