// SPDX-License-Identifier: BSD-2-Clause
//! What criterion measured in `benches/micro.rs`.

use crate::table::{Row, Unit};
use std::fs;
use std::io;
use std::path::Path;

/// The rows, in the order in which they were measured.
pub fn read(folder: &Path) -> io::Result<Vec<Row>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let folder = entry?.path();
        let (Some(ours), Some(floor)) =
            (Estimate::read(&folder, "ours"), Estimate::read(&folder, "floor"))
        else {
            continue;
        };
        let mut row = Row::new("Small parts, per datagram", ours.group, Unit::Nanoseconds, "floor");
        row.turns.push((ours.median, floor.median));
        row.spread = Some((ours.low / floor.high, ours.high / floor.low));
        found.push((ours.order, row));
    }
    found.sort_by_key(|(order, _)| *order);
    Ok(found.into_iter().map(|(_, row)| row).collect())
}

/// One benchmark: the median of the time of one call, in nanoseconds, and its interval of 95 %.
struct Estimate {
    group: String,
    order: std::time::SystemTime,
    median: f64,
    low: f64,
    high: f64,
}

impl Estimate {
    fn read(group: &Path, which: &str) -> Option<Estimate> {
        let folder = group.join(which).join("new");
        let file = folder.join("estimates.json");
        let json = |text: Vec<u8>| serde_json::from_slice::<serde_json::Value>(&text).ok();
        let named = json(fs::read(folder.join("benchmark.json")).ok()?)?;
        let estimates = json(fs::read(&file).ok()?)?;
        let median = estimates.get("median")?;
        let interval = median.get("confidence_interval")?;
        Some(Estimate {
            group: named.get("group_id")?.as_str()?.to_owned(),
            order: fs::metadata(&file).ok()?.modified().ok()?,
            median: median.get("point_estimate")?.as_f64()?,
            low: interval.get("lower_bound")?.as_f64()?,
            high: interval.get("upper_bound")?.as_f64()?,
        })
    }
}
