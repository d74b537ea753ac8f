//! Replaces the names of windows with their definitions.
//!
//! ```text
//!   sum(x) OVER w … WINDOW w AS (PARTITION BY k)              ─►  sum(x) OVER (PARTITION BY k)
//!   sum(x) OVER (w ORDER BY y) … WINDOW w AS (PARTITION BY k) ─►  sum(x) OVER (PARTITION BY k ORDER BY y)
//! ```
//!
//! The planner itself replaces only names in the select list, and drops the name in `OVER (w ORDER BY y)`.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, NamedWindowDefinition, NamedWindowExpr, Query, Select, SetExpr, Visit as _, VisitMut, Visitor,
    VisitorMut, WindowSpec, WindowType,
};

use crate::error::{Error, Result};
use crate::sql::syntax::tree::{flow, name_of, query_of};

/// The maximum number of expressions that are copied from the definitions of one WINDOW clause.
const COPIED_MAX: usize = 50_000;

/// Replaces the names of windows in a statement and its subqueries.
pub(super) fn rewrite(statement: &mut Statement) -> Result<()> {
    let Some(query) = query_of(statement) else { return Ok(()) };
    flow(VisitMut::visit(query, &mut Queries))
}

struct Queries;

impl VisitorMut for Queries {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        let Query { body, order_by, .. } = query;
        if let SetExpr::Select(select) = &mut **body
            && !select.named_window.is_empty()
        {
            let mut windows = match definitions(select) {
                Ok(windows) => windows,
                Err(error) => return ControlFlow::Break(error),
            };
            VisitMut::visit(order_by, &mut windows)?;
        }
        ControlFlow::Continue(())
    }

    /// Replaces the names in the operands of UNION, INTERSECT and EXCEPT, and in all other SELECTs. The ORDER BY of a
    /// query has already been handled.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        if select.named_window.is_empty() {
            return ControlFlow::Continue(());
        }
        let mut windows = match definitions(select) {
            Ok(windows) => windows,
            Err(error) => return ControlFlow::Break(error),
        };
        VisitMut::visit(&mut select.projection, &mut windows)?;
        VisitMut::visit(&mut select.qualify, &mut windows)?;
        for definition in &mut select.named_window {
            match windows.copy(&definition.0) {
                Ok(spec) => definition.1 = NamedWindowExpr::WindowSpec(spec),
                Err(error) => return ControlFlow::Break(error),
            }
        }
        ControlFlow::Continue(())
    }
}

/// The definitions of a WINDOW clause. The names inside these definitions have already been replaced. As a visitor, it
/// handles one SELECT and skips its subqueries.
struct Windows {
    definitions: Vec<(String, WindowSpec)>,
    /// The number of expressions that have been copied so far.
    copied: usize,
    /// The number of subqueries around the visited node.
    depth: usize,
}

fn definitions(select: &Select) -> Result<Windows> {
    let mut windows = Windows { definitions: Vec::with_capacity(select.named_window.len()), copied: 0, depth: 0 };
    for NamedWindowDefinition(name, definition) in &select.named_window {
        let spec = match definition {
            NamedWindowExpr::NamedWindow(base) => windows.copy(base)?,
            NamedWindowExpr::WindowSpec(spec) => windows.complete(spec.clone())?,
        };
        windows.definitions.push((name_of(name), spec));
    }
    Ok(windows)
}

fn unknown(name: &Ident) -> Error {
    Error::invalid(format!("unknown window `{}`: define it in the WINDOW clause", name.value))
}

impl Windows {
    fn copy(&mut self, name: &Ident) -> Result<WindowSpec> {
        let key = name_of(name);
        let spec = self.definitions.iter().find(|(defined, _)| *defined == key).map(|(_, spec)| spec);
        let spec = spec.ok_or_else(|| unknown(name))?;
        let mut count = ExprCount(self.copied);
        let _ = spec.visit(&mut count);
        self.copied = count.0;
        if self.copied > COPIED_MAX {
            return Err(Error::limited(format!(
                "the query copies more than {COPIED_MAX} expressions from one WINDOW clause: use its windows less often"
            )));
        }
        Ok(spec.clone())
    }

    /// Adds the clauses of the window that `spec` extends.
    fn complete(&mut self, mut spec: WindowSpec) -> Result<WindowSpec> {
        let Some(name) = spec.window_name.take() else { return Ok(spec) };
        let base = self.copy(&name)?;
        let refuse = |clause: &str| {
            Err(Error::invalid(format!("a window that extends `{}` cannot have another {clause}", name.value)))
        };
        if !spec.partition_by.is_empty() {
            return refuse("PARTITION BY");
        }
        if !spec.order_by.is_empty() && !base.order_by.is_empty() {
            return refuse("ORDER BY");
        }
        if base.window_frame.is_some() {
            return Err(Error::invalid(format!(
                "the window `{0}` has a frame, so it cannot be extended: write OVER {0} without parentheses",
                name.value
            )));
        }
        spec.partition_by = base.partition_by;
        if spec.order_by.is_empty() {
            spec.order_by = base.order_by;
        }
        Ok(spec)
    }
}

/// Counts expressions.
struct ExprCount(usize);

impl Visitor for ExprCount {
    type Break = ();

    fn pre_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
        self.0 += 1;
        ControlFlow::Continue(())
    }
}

impl VisitorMut for Windows {
    type Break = Error;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        if self.depth > 0 {
            return ControlFlow::Continue(());
        }
        let spec = match &mut function.over {
            Some(WindowType::NamedWindow(name)) => self.copy(name),
            Some(WindowType::WindowSpec(spec)) if spec.window_name.is_some() => self.complete(spec.clone()),
            _ => return ControlFlow::Continue(()),
        };
        match spec {
            Ok(spec) => {
                function.over = Some(WindowType::WindowSpec(spec));
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}
