package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
)

// report is one run of the program.
type report struct {
	Machine machine `json:"machine"`
	Command string  `json:"command"`
	Storage string  `json:"storage"`
	Tables  []table `json:"workloads"`
}

func (r report) header(out io.Writer) error {
	_, err := fmt.Fprintf(out, "%v\n%s; content in %s\n", r.Machine, r.Command, r.Storage)
	return err
}

// summary says how many goals stand how.
func (r report) summary(out io.Writer) error {
	var known, reached, all int
	for _, t := range r.Tables {
		for _, g := range t.Goals {
			all++
			if g.Known {
				known++
			}
			if g.Reached {
				reached++
			}
		}
	}
	if all == 0 {
		return nil
	}
	_, err := fmt.Fprintf(out, "\n%d of %d goals reached, %d not, %d not measured\n", reached, all, known-reached, all-known)
	return err
}

// failures is nil if there are none.
func (r report) failures() error {
	n := 0
	for _, t := range r.Tables {
		for _, y := range t.Rows {
			n += len(y.Failures)
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d measurements failed", n)
}

// write writes all measurements to a file, if one is named.
func (r report) write(file string) error {
	if file == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

// table is what one workload took of each system.
type table struct {
	Workload string   `json:"workload"`
	About    string   `json:"about"`
	Columns  []metric `json:"columns"`
	Rows     []row    `json:"systems"`
	Goals    []judged `json:"goals"`
}

// row is one system's.
type row struct {
	System       string   `json:"system"`
	Measurements []values `json:"measurements"`
	// Failures are the errors of the rounds that have no measurement.
	Failures []string `json:"failures,omitempty"`
}

// judged is a goal and how it stands.
type judged struct {
	goal
	outcome
}

// judge compares what was measured with the goals.
func (t *table) judge(goals []goal) {
	t.Goals = nil
	for _, g := range goals {
		t.Goals = append(t.Goals, judged{g, g.judge(t.median)})
	}
}

// median of a system; ok is false if it was not measured.
func (t *table) median(system string, m metric) (v float64, ok bool) {
	for _, r := range t.Rows {
		if all := r.values(m); r.System == system && len(all) > 0 {
			return median(all), true
		}
	}
	return 0, false
}

// print writes the table for readers. All numbers are medians, but the extremes of the first column.
func (t *table) print(out io.Writer) error {
	if _, err := fmt.Fprintf(out, "\n%s: %s\n", t.Workload, t.About); err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "system\t")
	for i, m := range t.Columns {
		fmt.Fprintf(w, "%s\t", m)
		if i == 0 {
			fmt.Fprint(w, "min\tmax\t")
		}
	}
	fmt.Fprintln(w)
	for _, r := range t.Rows {
		fmt.Fprintf(w, "%s\t", r.System)
		for i, m := range t.Columns {
			all := r.values(m)
			if len(all) == 0 {
				fmt.Fprint(w, "-\t")
				if i == 0 {
					fmt.Fprint(w, "-\t-\t")
				}
				continue
			}
			fmt.Fprintf(w, "%s\t", spell(median(all)))
			if i == 0 {
				fmt.Fprintf(w, "%s\t%s\t", spell(slices.Min(all)), spell(slices.Max(all)))
			}
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range t.Rows {
		for _, failure := range r.Failures {
			if _, err := fmt.Fprintf(out, "  %s FAILED: %s\n", r.System, failure); err != nil {
				return err
			}
		}
	}
	for _, g := range t.Goals {
		if _, err := fmt.Fprintf(out, "  goal, %v: %s\n", g.goal, g.describe(g.outcome)); err != nil {
			return err
		}
	}
	return nil
}

// values are those of a metric in all rounds; what has no such metric has none.
func (r row) values(m metric) []float64 {
	var all []float64
	for _, v := range r.Measurements {
		if n, ok := v[m]; ok {
			all = append(all, n)
		}
	}
	return all
}

// median is the middle one of values, or the mean of the two in the middle; 0 if there are none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.SortedFunc(slices.Values(values), cmp.Compare)
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
