//! Dates: from seconds since 1970 to the fields that a clock shows, and on by a number of days.

/// Days of 400 years of the Gregorian calendar.
const ERA_DAYS: u64 = 146_097;
/// Days are numbered from the first of March 400 years before the year 0: a guest may set any year.
const BASE_YEARS: u64 = 400;
/// The number of 1970-01-01.
const EPOCH: u64 = ERA_DAYS + 719_468;
/// 1970-01-01 was a Thursday: day 5 of a week that begins on Sunday with 1.
const EPOCH_WEEKDAY: u64 = 5;

/// A day of the Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Date {
    /// 0 to 9999 or so.
    pub(super) year: u64,
    /// 1 to 12.
    pub(super) month: u64,
    /// 1 to 31.
    pub(super) day: u64,
}

impl Date {
    /// The day `days` days after 1970-01-01.
    pub(super) fn from_unix_days(days: u64) -> Self {
        Self::from_number(days + EPOCH)
    }

    /// The day `days` days after this one. Days and months outside the calendar run over.
    pub(super) fn plus_days(self, days: u64) -> Self {
        Self::from_number(self.number() + days)
    }

    fn from_number(days: u64) -> Self {
        // Years are counted from March, so that the leap day is a year's last.
        let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - days_before_year(year_of_era);
        let month = (5 * day_of_year + 2) / 153;
        let (turn, month_of_year) = if month < 10 { (0, month + 3) } else { (1, month - 9) };
        Self {
            year: (era * 400 + year_of_era + turn).saturating_sub(BASE_YEARS),
            month: month_of_year,
            day: day_of_year - days_before_month(month) + 1,
        }
    }

    fn number(self) -> u64 {
        let month = self.month.clamp(1, 12);
        let year = self.year + BASE_YEARS;
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let day_of_year = days_before_month(month) + self.day.max(1) - 1;
        year / 400 * ERA_DAYS + days_before_year(year % 400) + day_of_year
    }
}

/// Days of an era before its year `year`.
fn days_before_year(year: u64) -> u64 {
    year * 365 + year / 4 - year / 100
}

/// Days of a year that begins in March before its month `month` (0 for March).
fn days_before_month(month: u64) -> u64 {
    (153 * month + 2) / 5
}

/// The day of the week, 1 (Sunday) to 7, of the day `days` days after 1970-01-01.
pub(super) fn unix_weekday(days: u64) -> u64 {
    weekday_plus(EPOCH_WEEKDAY, days)
}

/// The day of the week `days` days after `weekday`.
pub(super) fn weekday_plus(weekday: u64, days: u64) -> u64 {
    (weekday.max(1) - 1 + days % 7) % 7 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        for (days, (year, month, day), week) in [
            (0, (1970, 1, 1), 5),
            (11_016, (2000, 2, 29), 3),
            (11_017, (2000, 3, 1), 4),
            (19_782, (2024, 2, 29), 5),
            (47_540, (2100, 2, 28), 1),
            (47_541, (2100, 3, 1), 2),
        ] {
            let date = Date { year, month, day };
            assert_eq!(Date::from_unix_days(days), date);
            assert_eq!(Date { year: 1970, month: 1, day: 1 }.plus_days(days), date);
            assert_eq!(unix_weekday(days), week, "{date:?}");
        }
    }

    #[test]
    fn every_day_has_its_date() {
        let mut date = Date { year: 0, month: 1, day: 1 };
        for days in 0..1_000_000 {
            assert_eq!(date.number(), days + ERA_DAYS - 60, "{date:?}");
            date = date.plus_days(1);
        }
    }
}
