//! Line charts as SVG, drawn by `plotters`. An added style sheet makes a plot readable on light and
//! dark pages.

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::GrowthError;

const SIZE: (u32, u32) = (640, 380);
const MARGIN: i32 = 14;
/// The space left of the vertical axis.
const AXIS_LABELS: u32 = 72;

/// The colors of the lines, in order. Chosen for sufficient contrast on white and on black.
const COLORS: [RGBColor; 4] =
    [RGBColor(47, 129, 247), RGBColor(219, 109, 40), RGBColor(46, 160, 67), RGBColor(191, 90, 200)];

/// The color of axes and grid on any page.
const GREY: RGBColor = RGBColor(128, 128, 128);

/// The style sheet that gives text the color of the page's theme. It overrides the attributes of
/// elements, which are all that `plotters` writes.
const STYLE: &str = "<style>text{fill:#1f2328}@media(prefers-color-scheme:dark){text{fill:#e6edf3}}</style>";

/// The unit of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// A plain number.
    Count,
    /// Bytes, in units of 1,024.
    Bytes,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) label: &'static str,
    pub(super) unit: Unit,
    pub(super) is_log: bool,
    /// On a logarithmic axis: whether grid lines are at powers of two instead of ten.
    pub(super) is_base_two: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// A plot to draw. At least one line has a point.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
}

impl Chart {
    /// Draws the plot as an SVG document.
    pub(super) fn draw(&self) -> Result<String, GrowthError> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let (left, right) = self.x.range(points().map(|point| point.0));
        let (low, high) = self.y.range(points().map(|point| point.1));
        let base = |axis: Axis| if axis.is_base_two { 2.0 } else { 10.0 };
        let x_log = || (left..right).log_scale().base(base(self.x));
        let y_log = || (low..high).log_scale().base(base(self.y));
        match (self.x.is_log, self.y.is_log) {
            (true, true) => self.draw_on(x_log(), y_log()),
            (true, false) => self.draw_on(x_log(), low..high),
            (false, true) => self.draw_on(left..right, y_log()),
            (false, false) => self.draw_on(left..right, low..high),
        }
    }

    fn draw_on<X, Y>(&self, x: X, y: Y) -> Result<String, GrowthError>
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let mut svg = String::new();
        self.draw_into(&mut svg, x, y).map_err(|error| GrowthError::Plot(error.to_string()))?;
        let body = svg.find('>').map_or(0, |end| end + 1);
        svg.insert_str(body, STYLE);
        Ok(svg)
    }

    fn draw_into<X, Y>(&self, svg: &mut String, x: X, y: Y) -> Result<(), Box<dyn std::error::Error>>
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        let mut builder = ChartBuilder::on(&area);
        area.draw(&Text::new(self.title, (MARGIN, MARGIN), ("sans-serif", 18)))?;
        builder.margin(MARGIN).margin_top(60).margin_right(2 * MARGIN);
        builder.set_label_area_size(LabelAreaPosition::Left, AXIS_LABELS);
        builder.set_label_area_size(LabelAreaPosition::Bottom, 44);
        let mut chart = builder.build_cartesian_2d(x, y)?;
        let (x_text, y_text) =
            (|value: &f64| self.x.unit.text(*value), |value: &f64| self.y.unit.text(*value));
        let mut mesh = chart.configure_mesh();
        mesh.axis_style(GREY).bold_line_style(GREY.mix(0.3)).light_line_style(TRANSPARENT).max_light_lines(1);
        mesh.label_style(("sans-serif", 13)).axis_desc_style(("sans-serif", 14)).x_labels(8).y_labels(6);
        mesh.x_desc(self.x.label).x_label_formatter(&x_text);
        mesh.y_desc(self.y.label).y_label_formatter(&y_text);
        mesh.draw()?;
        for (line, color) in self.lines.iter().zip(COLORS).filter(|(line, _)| !line.points.is_empty()) {
            let points = || line.points.iter().copied();
            chart.draw_series(LineSeries::new(points(), color.stroke_width(2)))?;
            chart.draw_series(points().map(|point| Circle::new(point, 3, color.filled())))?;
        }
        self.draw_legend(&area)?;
        area.present()?;
        Ok(())
    }
}

impl Chart {
    /// Draws the names of the lines, side by side between title and axes, where no line can cross
    /// them.
    fn draw_legend(
        &self,
        area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        const TOP: i32 = 42;
        const DASH: i32 = 18;
        /// The width of a letter: more than this size needs in any usual font.
        const LETTER: i32 = 8;
        let mut left = i32::try_from(AXIS_LABELS)? + MARGIN;
        for (line, color) in self.lines.iter().zip(COLORS).filter(|(line, _)| !line.points.is_empty()) {
            let dash = [(left, TOP), (left + DASH, TOP)];
            area.draw(&PathElement::new(dash, color.stroke_width(3)))?;
            area.draw(&Text::new(line.name.as_str(), (left + DASH + 6, TOP - 6), ("sans-serif", 14)))?;
            left += DASH + 24 + LETTER * i32::try_from(line.name.len())?;
        }
        Ok(())
    }
}

impl Axis {
    /// The range of the axis, which contains all values. A linear axis starts at zero, so that
    /// heights are proportional to values.
    fn range(self, values: impl Iterator<Item = f64>) -> (f64, f64) {
        /// The factor of space above the highest point.
        const ROOM: f64 = 1.08;
        let (least, most) = values.fold((f64::INFINITY, 0.0), |(least, most): (f64, f64), value| {
            (least.min(value), most.max(value))
        });
        match (self.is_log, self.is_base_two) {
            (false, _) => (0.0, most * ROOM),
            (true, true) => (least, most),
            (true, false) => (10_f64.powf(least.log10().floor()), 10_f64.powf(most.log10().ceil())),
        }
    }
}

impl Unit {
    fn text(self, value: f64) -> String {
        let (steps, width): (&[&str], f64) = match self {
            Self::Count => (&["", "k", "M"], 1000.0),
            Self::Bytes => (&[" B", " KiB", " MiB"], 1024.0),
        };
        let mut value = value;
        let mut steps = steps.iter().peekable();
        while let Some(step) = steps.next() {
            if value < width || steps.peek().is_none() {
                let text = format!("{value:.3}");
                let text = text.trim_end_matches('0').trim_end_matches('.');
                return format!("{text}{step}");
            }
            value /= width;
        }
        unreachable!("the last step has no next one")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(is_log: bool, is_base_two: bool) -> Axis {
        Axis { label: "things", unit: Unit::Count, is_log, is_base_two }
    }

    #[test]
    fn numbers_are_short() {
        let count = |value| Unit::Count.text(value);
        assert_eq!([0.0, 0.25, 1.0, 999.0].map(count), ["0", "0.25", "1", "999"]);
        assert_eq!([1e3, 12_500.0, 1e6, 2e9].map(count), ["1k", "12.5k", "1M", "2000M"]);
        assert_eq!(
            [16.0, 1024.0, 262_144.0].map(|value| Unit::Bytes.text(value)),
            ["16 B", "1 KiB", "256 KiB"]
        );
    }

    #[test]
    fn an_axis_has_room_for_all_values() {
        let values = || [20.0, 3_000.0].into_iter();
        assert_eq!(axis(true, false).range(values()), (10.0, 10_000.0));
        assert_eq!(axis(true, true).range(values()), (20.0, 3_000.0));
        let (low, high) = axis(false, false).range(values());
        assert!(low == 0.0 && high > 3_000.0);
    }

    #[test]
    fn a_plot_contains_its_title_and_labels() {
        for (is_log, is_base_two) in [(false, false), (true, false), (true, true)] {
            let line = |name: &str| Line { name: name.into(), points: vec![(1.0, 2.0), (64.0, 400.0)] };
            let axis = axis(is_log, is_base_two);
            let lines = vec![line("one"), line("other")];
            let svg = Chart { title: "Title", x: axis, y: axis, lines }.draw().unwrap();
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
            for text in ["Title", "one", "other"] {
                assert!(svg.contains(text), "{text} is missing");
            }
            assert_eq!(svg.matches("things").count(), 2);
            assert!(svg.contains("prefers-color-scheme:dark"));
            assert!(svg.len() < 16 << 10, "{} bytes", svg.len());
        }
    }
}
