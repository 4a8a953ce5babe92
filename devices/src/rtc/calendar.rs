//! The clock's registers as a date, and dates as seconds since 1970 (proleptic Gregorian).

use super::spec::{CENTURY, reg, reg_b};

/// Seconds in one day.
const DAY: i64 = 86_400;
/// Alarm bytes from here on match anything.
const DONT_CARE: u8 = 0xc0;
const PM: u8 = 0x80;

/// The time registers as numbers. A guest may store dates that do not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    second: u8,
    minute: u8,
    hour: u8,
    /// 1 (Sunday) to 7.
    weekday: u8,
    day: u8,
    month: u8,
    year: u8,
    century: u8,
}

/// Days since 1970-01-01 of a civil date (month 1-12), after Howard Hinnant's algorithm.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

fn civil_from_days(days: i64) -> (i64, u8, u8) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (
        yoe + era * 400 + i64::from(month <= 2),
        month as u8,
        day as u8,
    )
}

fn weekday_of(days: i64) -> u8 {
    ((days + 4).rem_euclid(7) + 1) as u8
}

impl Fields {
    /// The date at a Unix time, clamped to the years 0-9999; `weekday_offset` (0-6) is how far
    /// the guest set the weekday off the calendar's.
    pub fn from_unix(seconds: i64, weekday_offset: u8) -> Self {
        let seconds = seconds.clamp(-62_167_219_200, 253_402_300_799);
        let (days, tod) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        let (year, month, day) = civil_from_days(days);
        Self {
            second: (tod % 60) as u8,
            minute: (tod / 60 % 60) as u8,
            hour: (tod / 3600) as u8,
            weekday: (weekday_of(days) - 1 + weekday_offset) % 7 + 1,
            day,
            month,
            year: year.rem_euclid(100) as u8,
            century: (year / 100) as u8,
        }
    }

    fn days(&self) -> i64 {
        let year = i64::from(self.century) * 100 + i64::from(self.year);
        days_from_civil(
            year,
            i64::from(self.month.clamp(1, 12)),
            i64::from(self.day),
        )
    }

    /// The Unix time; fields out of range carry over into the next larger one.
    pub fn to_unix(self) -> i64 {
        let tod = i64::from(self.hour) * 3600 + i64::from(self.minute) * 60;
        self.days() * DAY + tod + i64::from(self.second)
    }

    /// How many days (0-6) the weekday register is ahead of the calendar.
    pub fn weekday_offset(&self) -> u8 {
        (self.weekday + 7 - weekday_of(self.days())) % 7
    }

    /// A time register in the format that register B selects; `None` if it is another register.
    pub fn read(&self, index: u8, b: u8) -> Option<u8> {
        let value = match index {
            reg::SECONDS => self.second,
            reg::MINUTES => self.minute,
            reg::HOURS => return Some(encode_hour(self.hour, b)),
            reg::WEEKDAY => self.weekday,
            reg::DAY => self.day,
            reg::MONTH => self.month,
            reg::YEAR => self.year,
            CENTURY => return Some(to_bcd(self.century)),
            _ => return None,
        };
        Some(encode(value, b))
    }

    /// Stores a time register; false if it is another register.
    pub fn write(&mut self, index: u8, value: u8, b: u8) -> bool {
        let number = decode(value, b);
        match index {
            reg::SECONDS => self.second = number,
            reg::MINUTES => self.minute = number,
            reg::HOURS => self.hour = decode_hour(value, b),
            // Kept below 8, so that the offset to the calendar stays a day count.
            reg::WEEKDAY => self.weekday = number & 7,
            reg::DAY => self.day = number,
            reg::MONTH => self.month = number,
            reg::YEAR => self.year = number % 100,
            CENTURY => self.century = from_bcd(value) % 100,
            _ => return false,
        }
        true
    }
}

fn to_bcd(value: u8) -> u8 {
    (value / 10 % 10) << 4 | (value % 10)
}

fn from_bcd(value: u8) -> u8 {
    (value >> 4) * 10 + (value & 0xf)
}

fn encode(value: u8, b: u8) -> u8 {
    if b & reg_b::BINARY != 0 {
        value
    } else {
        to_bcd(value)
    }
}

fn decode(value: u8, b: u8) -> u8 {
    if b & reg_b::BINARY != 0 {
        value
    } else {
        from_bcd(value)
    }
}

fn encode_hour(hour: u8, b: u8) -> u8 {
    if b & reg_b::HOURS_24 != 0 {
        return encode(hour, b);
    }
    let twelve = if hour.is_multiple_of(12) {
        12
    } else {
        hour % 12
    };
    encode(twelve, b) | if hour >= 12 { PM } else { 0 }
}

fn decode_hour(value: u8, b: u8) -> u8 {
    if b & reg_b::HOURS_24 != 0 {
        return decode(value, b);
    }
    decode(value & !PM, b) % 12 + if value & PM != 0 { 12 } else { 0 }
}

/// The first second after `after` (Unix time) whose time of day matches the alarm bytes.
pub fn next_alarm(after: i64, b: u8, hour: u8, minute: u8, second: u8) -> Option<i64> {
    let field = |raw: u8, value: u8| (raw < DONT_CARE).then_some(i64::from(value));
    let h = field(hour, decode_hour(hour, b));
    let m = field(minute, decode(minute, b));
    let s = field(second, decode(second, b));
    let matches = |want: Option<i64>, value: i64| want.is_none_or(|w| w == value);
    let start = after.saturating_add(1);
    let (day, tod) = (start.div_euclid(DAY), start.rem_euclid(DAY));
    // The first match of a day at or after time of day `from`; at most 24 + 60 + 60 steps.
    let in_day = |from: i64| -> Option<i64> {
        for hh in (from / 3600..24).filter(|hh| matches(h, *hh)) {
            let from = (from - hh * 3600).max(0);
            for mm in (from / 60..60).filter(|mm| matches(m, *mm)) {
                let from = (from - mm * 60).max(0);
                if let Some(ss) = (from..60).find(|ss| matches(s, *ss)) {
                    return Some(hh * 3600 + mm * 60 + ss);
                }
                if s.is_some_and(|s| s > 59) {
                    return None;
                }
            }
        }
        None
    };
    match in_day(tod) {
        Some(at) => day.checked_mul(DAY)?.checked_add(at),
        None => (day + 1).checked_mul(DAY)?.checked_add(in_day(0)?),
    }
}
