//! Runs the examples in `docs/sql.md`, and checks the list of functions on that page.
//!
//! Each block of SQL is followed by a block with its result: a table, or an error. The tables are those of `tests/sql`.

use std::collections::BTreeSet;

use futures::TryStreamExt as _;
use glasshouse::error::Error;
use glasshouse::query::Session;

use crate::sql::{rows, session};

const PAGE: &str = include_str!("../../docs/sql.md");

/// Returns the blocks of the page, each with its language and its text.
fn blocks() -> Vec<(&'static str, String)> {
    let mut blocks: Vec<(&str, String)> = Vec::new();
    let mut is_inside = false;
    for line in PAGE.lines() {
        match line.strip_prefix("```") {
            Some(_) if is_inside => is_inside = false,
            Some(language) => {
                blocks.push((language, String::new()));
                is_inside = true;
            }
            None if is_inside => {
                let (_, text) = blocks.last_mut().unwrap();
                text.push_str(line);
                text.push('\n');
            }
            None => {}
        }
    }
    blocks
}

/// Returns the result of a statement as the page shows it.
async fn result(session: &Session, sql: &str) -> String {
    table(session, sql).await.unwrap_or_else(|error| format!("error: {error}\n"))
}

async fn table(session: &Session, sql: &str) -> Result<String, Error> {
    let planned = session.plan(sql).await?;
    let batches: Vec<_> = session.run(&planned, None).await?.batches.try_collect().await?;
    let names: Vec<String> = planned.schema.fields().iter().map(|field| field.name().clone()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(names).chain(batches.iter().flat_map(rows)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let rule = widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().join("-+-");
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join(" | ").trim_end());
        text.push('\n');
        if index == 0 {
            text.push_str(&rule);
            text.push('\n');
        }
    }
    Ok(text)
}

#[tokio::test]
async fn every_example_returns_the_result_on_the_page() {
    let session = session(0).await;
    let blocks = blocks();
    let (mut examples, mut different) = (0, Vec::new());
    for (index, (_, sql)) in blocks.iter().enumerate().filter(|(_, (language, _))| *language == "sql") {
        let expected = blocks.get(index + 1).filter(|(language, _)| *language == "text").map(|(_, text)| text.as_str());
        let found = result(&session, sql).await;
        examples += 1;
        if expected != Some(found.as_str()) {
            different.push(format!("{sql}\nthe page: {}\nthe result:\n{found}", expected.unwrap_or("no result")));
        }
    }
    assert!(examples > 20, "the page has only {examples} examples");
    assert!(different.is_empty(), "{} of {examples} examples differ\n{}", different.len(), different.join("\n"));
}

#[tokio::test]
async fn every_listed_function_exists() {
    let session = session(0).await;
    let planned = session.plan("SELECT DISTINCT routine_name FROM information_schema.routines").await.unwrap();
    let batches: Vec<_> = session.run(&planned, None).await.unwrap().batches.try_collect().await.unwrap();
    let known: BTreeSet<String> = batches.iter().flat_map(rows).flatten().collect();
    let section = PAGE.split("\n## ").find(|section| section.starts_with("Functions\n")).unwrap();
    let lists = section.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    let listed: BTreeSet<&str> = lists.flat_map(|line| line.split('`').skip(1).step_by(2)).collect();
    let unknown: Vec<_> = listed.iter().filter(|name| !name.contains('(') && !known.contains(**name)).collect();
    assert!(listed.len() > 200, "the page lists only {} functions", listed.len());
    assert!(unknown.is_empty(), "docs/sql.md lists functions that do not exist: {unknown:?}");
}
