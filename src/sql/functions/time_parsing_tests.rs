//! Tests of `time_parsing.rs`.

use chrono::DateTime;

use crate::sql::functions::time_parsing::parse;
use crate::sql::functions::time_patterns::tokens;

fn read(text: &str, format: &str) -> Option<String> {
    let time = parse(text, &tokens(format)).ok()?;
    DateTime::from_timestamp_micros(time).map(|time| time.format("%Y-%m-%d %H:%M:%S%.6f").to_string())
}
#[test]
fn texts_are_read_as_by_postgres() {
    let cases = [
        ("2024-02-29 10:11:12.345678", "YYYY-MM-DD HH24:MI:SS.US", Some("2024-02-29 10:11:12.345678")),
        ("2024-02-29 10:11:12", "YYYY-MM-DD HH24:MI:SS", Some("2024-02-29 10:11:12.000000")),
        ("2024-02-29 10:11:12", "YYYY-MM-DD HH24:MI:SS.US", Some("2024-02-29 10:11:12.000000")),
        ("2024-02-29", "YYYY-MM-DD", Some("2024-02-29 00:00:00.000000")),
        ("20240229101112", "YYYYMMDDHH24MISS", Some("2024-02-29 10:11:12.000000")),
        ("2024/2/9", "YYYY-MM-DD", Some("2024-02-09 00:00:00.000000")),
        ("  2024  -  02 - 29 ", "YYYY-MM-DD", Some("2024-02-29 00:00:00.000000")),
        ("29 February 2024", "DD Month YYYY", Some("2024-02-29 00:00:00.000000")),
        ("29feb24", "DDMonYY", Some("2024-02-29 00:00:00.000000")),
        ("Thursday, 29th Feb 70", "Day, DDth Mon YY", None),
        ("02/29/2024 11:12:13 PM", "MM/DD/YYYY HH12:MI:SS AM", Some("2024-02-29 23:12:13.000000")),
        ("02/29/2024 12:00:13 a.m.", "MM/DD/YYYY HH:MI:SS p.m.", Some("2024-02-29 00:00:13.000000")),
        ("2024-02-29 13:00 PM", "YYYY-MM-DD HH12:MI AM", None),
        ("2024-060", "YYYY-DDD", Some("2024-02-29 00:00:00.000000")),
        ("2024-09-4", "IYYY-IW-ID", Some("2024-02-29 00:00:00.000000")),
        ("2024-09", "IYYY-IW", Some("2024-02-26 00:00:00.000000")),
        ("2024-366", "YYYY-DDD", Some("2024-12-31 00:00:00.000000")),
        ("2023-366", "YYYY-DDD", None),
        ("2460370", "J", Some("2024-02-29 00:00:00.000000")),
        ("12345 2024", "SSSSS YYYY", Some("2024-01-01 03:25:45.000000")),
        ("2024-02-29 10:11:12.25", "YYYY-MM-DD HH24:MI:SS.MS", Some("2024-02-29 10:11:12.250000")),
        ("2024-02-29 10:11:12.2", "YYYY-MM-DD HH24:MI:SS.FF3", Some("2024-02-29 10:11:12.200000")),
        ("2024-02-29 10:11:12 -05:30", "YYYY-MM-DD HH24:MI:SS TZH:TZM", Some("2024-02-29 15:41:12.000000")),
        ("2024-02-29 10:11:12+02", "YYYY-MM-DD HH24:MI:SSTZH", Some("2024-02-29 08:11:12.000000")),
        ("2024-02-30", "YYYY-MM-DD", None),
        ("2024-13-01", "YYYY-MM-DD", None),
        ("2024-02-29 25:00", "YYYY-MM-DD HH24:MI", None),
        ("2024-02-29 10:60", "YYYY-MM-DD HH24:MI", None),
        ("abc", "YYYY", None),
        ("20240", "YYYYMM", Some("2024-01-01 00:00:00.000000")),
        ("2024-02-29T10:11:12", "YYYY-MM-DD\"T\"HH24:MI:SS", Some("2024-02-29 10:11:12.000000")),
        ("2024-02-29T10:11:12Z", "YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"", Some("2024-02-29 10:11:12.000000")),
        ("2024-02-29T10:11:12", "YYYY-MM-DDTHH24:MI:SS", Some("2024-02-29 00:01:12.000000")),
        ("2024-00-00", "YYYY-MM-DD", Some("2024-01-01 00:00:00.000000")),
        ("1,999 XII", "Y,YYY RM", Some("1999-12-01 00:00:00.000000")),
        ("21 05", "CC YY", Some("2005-01-01 00:00:00.000000")),
        ("2024", "YYYY", Some("2024-01-01 00:00:00.000000")),
        ("2024 trailing", "YYYY", Some("2024-01-01 00:00:00.000000")),
        ("0", "YYYY", None),
        ("", "YYYY", None),
        ("2024 2", "YYYY Q", Some("2024-01-01 00:00:00.000000")),
        ("2024-02-29", "YYYY-MM-DD HH24:MI:SS", Some("2024-02-29 00:00:00.000000")),
        ("2024-02-29 5", "YYYY-MM-DD HH24", Some("2024-02-29 05:00:00.000000")),
        ("5 2024", "W YYYY", Some("2024-01-29 00:00:00.000000")),
        ("9 2024", "WW YYYY", Some("2024-02-26 00:00:00.000000")),
        ("2024  02", "FXYYYY MM", Some("2024-02-01 00:00:00.000000")),
        ("2024-02-29", "FXYYYY-MM-DD", Some("2024-02-29 00:00:00.000000")),
        ("2024-02 03", "YYYY-MM IW", None),
        ("viii 2024", "RM YYYY", Some("2024-08-01 00:00:00.000000")),
        ("2024-02-29 10h11", "YYYY-MM-DD HH24hMI", Some("2024-02-29 10:11:00.000000")),
        ("15 Jun 2024 3pm", "DD Mon YYYY HHam", Some("2024-06-15 15:00:00.000000")),
        ("2024h10", "YYYYhHH24", Some("2024-01-01 10:00:00.000000")),
        ("2024 12.123456", "YYYY SS.FF3", Some("2024-01-01 00:00:12.123000")),
        ("2024 12.9996", "YYYY SS.FF3", Some("2024-01-01 00:00:13.000000")),
        ("2024 March", "YYYY TMMonth", Some("2024-03-01 00:00:00.000000")),
        ("March May 2024", "Month Month YYYY", None),
        ("99", "YY", Some("1999-01-01 00:00:00.000000")),
        ("123", "YYY", Some("2123-01-01 00:00:00.000000")),
        ("5", "Y", Some("2005-01-01 00:00:00.000000")),
        ("2024-2-29 1:2:3", "FMYYYY-FMMM-FMDD FMHH24:FMMI:FMSS", Some("2024-02-29 01:02:03.000000")),
    ];
    for (text, format, expected) in cases {
        assert_eq!(read(text, format).as_deref(), expected, "{text} with {format}");
    }
}

#[test]
fn no_text_causes_a_panic() {
    let parts = ["9999999999", "-1", " ", "2024", "-", "é", "JUN", "th"];
    let formats = [
        "YYYY-MM-DD HH24:MI:SS.US",
        "J",
        "IYYY-IW-ID",
        "DDTH Month Y,YYY",
        "SSSSS TZH:TZM",
        "CC YY BC",
        "WW W DDD",
        "FXDY RM FF3",
        "FMIDDD FMI",
        "é\"T\"YY",
        "\"",
        "MS.US HH12 am D Q",
    ];
    for format in formats {
        for a in parts {
            for b in parts {
                for c in parts {
                    let _ = read(&format!("{a}{b}{c}{a}{c}"), format);
                }
            }
        }
    }
}
