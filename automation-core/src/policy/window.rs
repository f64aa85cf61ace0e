//! When scripts do not run: a weekly window, as a pure function of the clock.

use chrono::{DateTime, Days, FixedOffset, NaiveTime, TimeDelta, Utc, Weekday};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A time of the week in which scripts do not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MaintenanceWindow {
    /// How it is called in refusals.
    pub name: String,
    /// On which days it begins; empty: on every day.
    #[serde(default)]
    pub days: Vec<Weekday>,
    /// When it begins, as `22:00`.
    #[serde(with = "time_of_day")]
    pub from: NaiveTime,
    /// When it ends; at or before `from`: on the next day.
    #[serde(with = "time_of_day")]
    pub until: NaiveTime,
    /// The offset of its times, as `+02:00`. Default: UTC.
    #[serde(with = "offset", default = "utc")]
    pub utc_offset: FixedOffset,
    /// Of these scripts, or of one of `categories`; both empty: of all.
    #[serde(default)]
    pub scripts: Vec<String>,
    /// Of these categories.
    #[serde(default)]
    pub categories: Vec<String>,
}

impl MaintenanceWindow {
    /// Returns when the window ends in which `now` is, if it is in one.
    pub(super) fn closes_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let local = now.with_timezone(&self.utc_offset).naive_local();
        // A window is shorter than a day and a minute, so it began today or yesterday.
        [0, 1].into_iter().find_map(|days_ago| {
            let day = local.date().checked_sub_days(Days::new(days_ago))?;
            let begins = day.and_time(self.from);
            let ends = begins.checked_add_signed(self.length())?;
            let is_open =
                self.begins_on(chrono::Datelike::weekday(&day)) && begins <= local && local < ends;
            let offset = TimeDelta::seconds(self.utc_offset.local_minus_utc().into());
            is_open.then(|| (ends - offset).and_utc())
        })
    }

    fn begins_on(&self, day: Weekday) -> bool {
        self.days.is_empty() || self.days.contains(&day)
    }

    fn length(&self) -> TimeDelta {
        let length = self.until - self.from;
        if length > TimeDelta::zero() {
            length
        } else {
            length + TimeDelta::days(1)
        }
    }
}

const fn utc() -> FixedOffset {
    FixedOffset::east_opt(0).expect("no offset is within a day")
}

mod time_of_day {
    use super::{Deserialize, Deserializer, NaiveTime, Serializer, de};

    pub(super) fn serialize<S: Serializer>(time: &NaiveTime, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&time.format("%H:%M"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<NaiveTime, D::Error> {
        let text = String::deserialize(from)?;
        NaiveTime::parse_from_str(&text, "%H:%M").map_err(|_| {
            let expected = "a time of day such as 22:00";
            de::Error::invalid_value(de::Unexpected::Str(&text), &expected)
        })
    }
}

mod offset {
    use super::{Deserialize, Deserializer, FixedOffset, Serializer, de, utc};

    pub(super) fn serialize<S: Serializer>(offset: &FixedOffset, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(offset)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<FixedOffset, D::Error> {
        let text = String::deserialize(from)?;
        if text == "UTC" {
            return Ok(utc());
        }
        text.parse().map_err(|_| {
            let expected = "an offset such as +02:00, or UTC";
            de::Error::invalid_value(de::Unexpected::Str(&text), &expected)
        })
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Datelike, FixedOffset, NaiveTime, TimeDelta, Timelike, Weekday};
    use proptest::prelude::*;

    use super::MaintenanceWindow;

    const WEEK: i64 = 7 * 24 * 60;

    fn window(days: Vec<Weekday>, from: i64, until: i64, offset_minutes: i64) -> MaintenanceWindow {
        let time = |minute: i64| {
            NaiveTime::from_num_seconds_from_midnight_opt(u32::try_from(minute * 60).unwrap(), 0)
        };
        MaintenanceWindow {
            name: "w".to_owned(),
            days,
            from: time(from).unwrap(),
            until: time(until).unwrap(),
            utc_offset: FixedOffset::east_opt(i32::try_from(offset_minutes * 60).unwrap()).unwrap(),
            scripts: Vec::new(),
            categories: Vec::new(),
        }
    }

    fn days() -> impl Strategy<Value = Vec<Weekday>> {
        prop::collection::vec(
            (0..7_u8).prop_map(|day| Weekday::try_from(day).unwrap()),
            0..4,
        )
    }

    proptest! {
        /// Against minutes of the week that are counted around the clock.
        #[test]
        fn is_open_exactly_in_its_minutes(
            days in days(),
            (from, until) in (0..1440_i64, 0..1440_i64),
            offset in -720..=720_i64,
            minute in 0..20 * WEEK,
        ) {
            let window = window(days.clone(), from, until, offset);
            let now = DateTime::from_timestamp(1_700_000_000 / 60 * 60 + minute * 60, 0).unwrap();
            let local = now + TimeDelta::minutes(offset);
            let of_week = i64::from(local.weekday().num_days_from_monday()) * 1440
                + i64::from(local.num_seconds_from_midnight()) / 60;
            let length = if until > from { until - from } else { until - from + 1440 };
            let since = |day: u8| (of_week - i64::from(day) * 1440 - from).rem_euclid(WEEK);
            let begun = (0..7_u8)
                .filter(|day| days.is_empty() || days.contains(&Weekday::try_from(*day).unwrap()))
                .map(since)
                .filter(|since| *since < length)
                .min();
            let expected = begun.map(|since| now + TimeDelta::minutes(length - since));
            prop_assert_eq!(window.closes_at(now), expected);
        }
    }

    #[test]
    fn its_first_minute_belongs_to_it_and_its_last_does_not() {
        let window = window(Vec::new(), 22 * 60, 2 * 60, 0);
        let is_open = |time: &str| {
            let now = format!("2026-01-02T{time}Z").parse().unwrap();
            window.closes_at(now).is_some()
        };
        let times = [
            "21:59:59", "22:00:00", "23:59:59", "00:00:00", "01:59:59", "02:00:00",
        ];
        assert_eq!(times.map(is_open), [false, true, true, true, true, false]);
    }

    #[test]
    fn is_written_as_people_write_times() {
        let text = "name = \"b\"\ndays = [\"sat\"]\nfrom = \"22:00\"\nuntil = \"02:00\"\nutc_offset = \"+01:00\"";
        let window: MaintenanceWindow = toml::from_str(text).unwrap();
        assert_eq!(window.days, [Weekday::Sat]);
        assert_eq!(window.utc_offset.local_minus_utc(), 3600);
        let back: MaintenanceWindow =
            serde_json::from_value(serde_json::to_value(&window).unwrap()).unwrap();
        assert_eq!(back, window);
        for wrong in ["25:00", "22", "22:00:00"] {
            let error =
                toml::from_str::<MaintenanceWindow>(&text.replace("22:00", wrong)).unwrap_err();
            assert!(error.to_string().contains("time of day"), "{error}");
        }
    }
}
