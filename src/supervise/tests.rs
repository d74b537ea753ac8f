//! Tests that a task is restarted after a panic, that metrics count the panic, that `/readyz` shows the task, and that
//! its owner is not affected.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

fn task() -> Task {
    Task::new(TaskKind::LookupTable, "places")
}

/// Creates a supervisor with very short pauses before restarts.
fn supervisor() -> (Supervisor, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::default());
    let backoff = Backoff { pause_min: Duration::from_millis(1), pause_max: Duration::from_millis(2), ..BACKOFF };
    (Supervisor { backoff, ..Supervisor::new(metrics.clone()) }, metrics)
}

/// Runs a task that panics `panics` times before it ends. Returns, for each run of the task, the tasks that were down
/// when the run started.
async fn run(supervisor: &Supervisor, panics: u32) -> Vec<Vec<String>> {
    let (runs, seen) = (AtomicU32::new(0), Mutex::new(Vec::new()));
    let begin = || async {
        seen.lock().unwrap().push(supervisor.down_tasks());
        assert!(runs.fetch_add(1, Ordering::SeqCst) >= panics, "this run panics");
        7
    };
    assert_eq!(supervisor.keep(task(), &CancellationToken::new(), AtStop::End, begin).await, Some(7));
    seen.into_inner().unwrap()
}

#[tokio::test]
async fn a_task_that_panics_is_restarted() {
    let (supervisor, metrics) = supervisor();
    let seen = run(&supervisor, 2).await;
    assert_eq!(seen, vec![Vec::<String>::new(); 3], "a restart makes the server ready again");
    let page = metrics.render();
    for line in [
        "glasshouse_task_panics_total{task=\"lookup_table\"} 2",
        "glasshouse_task_restarts_total{task=\"lookup_table\"} 2",
    ] {
        assert!(page.contains(line), "{line} is missing from {page}");
    }
}

#[tokio::test]
async fn a_task_that_keeps_panicking_makes_the_server_not_ready() {
    let (supervisor, _) = supervisor();
    let seen = run(&supervisor, PANICS_MAX + 1).await;
    let failing = ["the lookup table `places` panicked at least 5 times in a row".to_owned()];
    assert!(seen[..PANICS_MAX as usize].iter().all(Vec::is_empty), "{seen:?}");
    assert!(seen[PANICS_MAX as usize..].iter().all(|down| *down == failing), "{seen:?}");
    assert_eq!(supervisor.down_tasks(), [""; 0], "the task has ended without a panic");
}

#[tokio::test]
async fn a_task_that_runs_long_enough_is_healthy_again() {
    let mut supervisor = supervisor().0;
    supervisor.backoff.steady_after = Duration::from_millis(20);
    let runs = AtomicU32::new(0);
    let begin = || async {
        let run = runs.fetch_add(1, Ordering::SeqCst);
        if run == PANICS_MAX {
            assert_eq!(supervisor.down_tasks().len(), 1, "the task has reached the panic limit");
            while !supervisor.down_tasks().is_empty() {
                tokio::task::yield_now().await;
            }
        }
        assert!(run > PANICS_MAX, "this run panics");
        assert!(supervisor.down_tasks().is_empty(), "the panic count was reset, so the last panic counts as the first");
    };
    supervisor.keep(task(), &CancellationToken::new(), AtStop::End, begin).await;
}

#[tokio::test]
async fn a_shutdown_ends_a_panicking_task_or_restarts_it_until_it_finishes() {
    for (at_stop, expected) in [(AtStop::End, (None, 1)), (AtStop::Finish, (Some(()), 3))] {
        let (supervisor, _) = supervisor();
        let (stop, runs) = (CancellationToken::new(), AtomicU32::new(0));
        let begin = || async {
            stop.cancel();
            assert!(runs.fetch_add(1, Ordering::SeqCst) >= 2, "this run panics");
        };
        let ended = supervisor.keep(task(), &stop, at_stop, begin).await;
        assert_eq!((ended, runs.load(Ordering::SeqCst)), expected, "{at_stop:?}");
    }
}

#[tokio::test]
async fn a_task_that_cannot_be_restarted_remains_down() {
    let (supervisor, _) = supervisor();
    let task = Task::new(TaskKind::Endpoint, "http");
    supervisor.failpoints.arm(&task);
    let ended = supervisor.once(task, std::future::pending::<Result<()>>()).await;
    assert_eq!(ended.unwrap_err().message(), "the endpoint `http` panicked: see the log for the cause");
    assert_eq!(supervisor.down_tasks(), ["the endpoint `http` panicked and has ended"]);
}

#[tokio::test]
async fn a_fence_turns_a_panic_into_an_error() {
    let text = |panic: Panic| panic.to_string();
    assert_eq!(catch(|| 1).map_err(text), Ok(1));
    assert!(catch(|| panic!("with {}", "words")).map_err(text).unwrap_err().starts_with("with words"));
    assert!(catch(|| std::panic::panic_any(7)).map_err(text).unwrap_err().starts_with("(no text)"));
    let inner = catch(|| panic!("inner")).unwrap_err();
    assert!(
        catch(|| inner.resume()).map_err(text).unwrap_err().starts_with("inner"),
        "a resumed panic must keep its message"
    );
    assert!(catch_future(async { panic!("later") }).await.map_err(text).unwrap_err().starts_with("later"));
    let error = blocking("decoding", || -> Result<()> { panic!("bad bytes") }).await.unwrap_err();
    assert!(format!("{error:?}").starts_with("Internal: decoding panicked; caused by: bad bytes"), "{error:?}");
}

#[test]
fn pauses_double_up_to_a_limit() {
    let pauses: Vec<u64> = (1..=9).map(|panics| BACKOFF.pause_after(panics).as_millis() as u64).collect();
    assert_eq!(pauses, [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000]);
    assert_eq!(BACKOFF.pause_after(u32::MAX), BACKOFF.pause_max);
}

#[test]
fn shutdown_deadlines_leave_time_for_the_last_commits() {
    let begun = tokio::time::Instant::now();
    let Deadline { drain, cut, commit, end } = Deadline::new(begun, Duration::from_secs(100));
    let seconds = [drain, cut, commit, end].map(|deadline| (deadline - begun).as_secs());
    assert_eq!(seconds, [60, 66, 90, 95]);
}
