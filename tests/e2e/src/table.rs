//! Measured figures beside their budgets, as benches print them.

/// Figures beside their budgets.
#[derive(Default)]
pub struct Table {
    missed: Vec<String>,
}

impl Table {
    /// A figure that may be no more than its budget.
    pub fn row(&mut self, name: &str, figure: f64, budget: Option<f64>) {
        self.print(name, figure, budget, "");
        if let Some(budget) = budget.filter(|budget| figure > *budget) {
            self.missed.push(format!("{name} is {figure:.2}, its budget {budget}"));
        }
    }

    /// A figure that may be no less than that.
    pub fn at_least(&mut self, name: &str, figure: f64, least: f64) {
        self.print(name, figure, Some(least), "≥ ");
        if figure < least {
            self.missed.push(format!("{name} is {figure:.2}, and should be {least} at least"));
        }
    }

    fn print(&self, name: &str, figure: f64, budget: Option<f64>, sign: &str) {
        let shown = budget.map_or_else(|| "–".to_owned(), |budget| format!("{sign}{budget}"));
        println!("  {name:<66} {figure:>10.2}   budget {shown:>7}");
    }

    /// Says which budgets were missed.
    pub fn end(self) {
        if self.missed.is_empty() {
            println!("every budget is kept");
        }
        for words in self.missed {
            println!("MISSED: {words}");
        }
    }
}
