//! What `lvs --reportformat json` says, and what is wrong with a pool.

use serde::Deserialize;

use super::ThinPoolName;

/// Ten thousandths are everything: lvm2 tells percents with two places.
const WHOLE: u64 = 10_000;
/// From here on a pool is told to be nearly full.
const NEARLY_FULL: u64 = 9_000;

/// Columns of a logical volume, for `-o`.
pub(super) const VOLUME_COLUMNS: &str = "lv_name,lv_tags,lv_size,pool_lv,data_percent";
/// Columns of a pool, for `-o`.
pub(super) const POOL_COLUMNS: &str =
    "lv_name,lv_layout,lv_size,data_percent,metadata_percent,zero,lv_health_status,vg_extent_size";

/// A thin logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogicalVolume {
    pub(super) name: String,
    pub(super) tags: Vec<String>,
    pub(super) size_bytes: u64,
    /// Its pool; empty when it has none.
    pub(super) pool: String,
    /// How much of it was ever written, in ten thousandths; unknown while it is not active.
    pub(super) written: Option<u64>,
}

impl LogicalVolume {
    pub(super) fn has(&self, tag: &str) -> bool {
        self.tags.iter().any(|one| one == tag)
    }

    pub(super) fn written_bytes(&self) -> u64 {
        part(self.size_bytes, self.written.unwrap_or(WHOLE))
    }
}

/// What a thin pool is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PoolState {
    pub(super) is_thin_pool: bool,
    pub(super) size_bytes: u64,
    /// How much of its data is in use, in ten thousandths; unknown while it is not active.
    pub(super) data: Option<u64>,
    /// The same of its metadata.
    pub(super) metadata: Option<u64>,
    /// Blocks are wiped before a volume has them.
    pub(super) zeroes: bool,
    /// Empty when all is well.
    pub(super) health: String,
    pub(super) extent_bytes: u64,
}

impl PoolState {
    pub(super) fn free_bytes(&self) -> u64 {
        part(self.size_bytes, WHOLE.saturating_sub(self.data.unwrap_or(0)))
    }
}

fn part(bytes: u64, ten_thousandths: u64) -> u64 {
    let share = u128::from(bytes) * u128::from(ten_thousandths) / u128::from(WHOLE);
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// What keeps a pool from being used, or will soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) found: String,
    pub(super) remedy: String,
    /// Nothing can be made in it.
    pub(super) is_fatal: bool,
}

/// What is wrong with a pool; `state`: what lvs says of it, nothing when it is not there.
pub(super) fn problem(pool: &ThinPoolName, state: Option<&PoolState>) -> Option<Problem> {
    let fatal = |found: String, remedy: String| Some(Problem { found, remedy, is_fatal: true });
    let make = format!("lvcreate --type thin-pool --size SIZE --name {} {}", pool.pool, pool.group);
    let Some(state) = state else { return fatal(format!("there is no thin pool {pool}"), make) };
    if !state.is_thin_pool {
        return fatal(format!("{pool} is no thin pool"), make);
    }
    if !state.zeroes {
        let found = format!("{pool} does not wipe blocks, and a volume would hold what another one held");
        return fatal(found, format!("lvchange --zero y {pool}"));
    }
    if !state.health.is_empty() {
        let found = format!("lvs says of {pool}: {}", state.health);
        return fatal(found, format!("lvs -o+lv_health_status {pool}; lvmthin(7) says what to do about it"));
    }
    let Some((data, metadata)) = state.data.zip(state.metadata) else {
        return fatal(format!("{pool} is not active"), format!("lvchange --activate y {pool}"));
    };
    let full = [("data", data, "--size"), ("metadata", metadata, "--poolmetadatasize")];
    let (what, _, option) = full.into_iter().find(|(_, used, _)| *used >= NEARLY_FULL)?;
    Some(Problem {
        found: format!("{pool} is nearly full: {} % of its {what} or more is in use", NEARLY_FULL / 100),
        remedy: format!("lvextend {option} +SIZE {pool}, or delete volumes and snapshots"),
        is_fatal: false,
    })
}

#[derive(Deserialize)]
struct Report<R> {
    report: Vec<Part<R>>,
}

#[derive(Deserialize)]
struct Part<R> {
    #[serde(default = "Vec::new")]
    lv: Vec<R>,
}

#[derive(Deserialize)]
struct VolumeRow {
    lv_name: String,
    lv_tags: String,
    lv_size: String,
    pool_lv: String,
    data_percent: String,
}

#[derive(Deserialize)]
struct PoolRow {
    lv_layout: String,
    lv_size: String,
    data_percent: String,
    metadata_percent: String,
    zero: String,
    lv_health_status: String,
    vg_extent_size: String,
}

fn rows<R: for<'a> Deserialize<'a>>(json: &[u8]) -> Result<Vec<R>, String> {
    let report: Report<R> = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    Ok(report.report.into_iter().flat_map(|part| part.lv).collect())
}

fn bytes(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number of bytes"))
}

/// Ten thousandths of a percent's text, such as `93.75`; nothing of an empty one.
fn ten_thousandths(text: &str) -> Result<Option<u64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
    let places = format!("{places:0<2}");
    let number = |text: &str| text.parse::<u64>().ok();
    let found = number(whole).zip(places.get(..2).and_then(number));
    let found = found.filter(|(whole, _)| *whole <= 100);
    Ok(Some(found.map(|(whole, places)| whole * 100 + places).ok_or(format!("{text:?} is no percent"))?))
}

/// Volumes, of a report with [`VOLUME_COLUMNS`] in bytes.
pub(super) fn volumes(json: &[u8]) -> Result<Vec<LogicalVolume>, String> {
    let volume = |row: VolumeRow| {
        let tags = row.lv_tags.split(',').filter(|tag| !tag.is_empty());
        Ok(LogicalVolume {
            tags: tags.map(str::to_owned).collect(),
            name: row.lv_name,
            size_bytes: bytes(&row.lv_size)?,
            pool: row.pool_lv,
            written: ten_thousandths(&row.data_percent)?,
        })
    };
    rows(json)?.into_iter().map(volume).collect()
}

/// A pool, of a report with [`POOL_COLUMNS`] in bytes.
pub(super) fn pool(json: &[u8]) -> Result<Option<PoolState>, String> {
    let Some(row) = rows::<PoolRow>(json)?.pop() else { return Ok(None) };
    Ok(Some(PoolState {
        is_thin_pool: row.lv_layout.split(',').eq(["thin", "pool"]),
        size_bytes: bytes(&row.lv_size)?,
        data: ten_thousandths(&row.data_percent)?,
        metadata: ten_thousandths(&row.metadata_percent)?,
        zeroes: row.zero == "zero",
        health: row.lv_health_status,
        extent_bytes: bytes(&row.vg_extent_size)?,
    }))
}
