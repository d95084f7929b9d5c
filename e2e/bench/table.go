package main

import (
	"cmp"
	"fmt"
	"io"
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

// table is what one workload took of each system.
type table struct {
	Workload string `json:"workload"`
	About    string `json:"about"`
	Rows     []row  `json:"systems"`
}

// row is one system's.
type row struct {
	System       string        `json:"system"`
	Measurements []measurement `json:"measurements"`
}

// baseline is the system that the others are compared with.
const baseline = "direct"

// print writes the table for readers. All numbers but the extremes are medians.
func (t table) print(out io.Writer) error {
	if _, err := fmt.Fprintf(out, "\n%s: %s\n", t.Workload, t.About); err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "system\tseconds\tmin\tmax\tof direct\tupstream/size\tconnections\tCPU seconds\tpeak MiB\t\n")
	base := t.baseline()
	for _, r := range t.Rows {
		seconds := r.values(func(m measurement) float64 { return m.Seconds })
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.2f\t%s\t%.3f\t%.0f\t%s\t%s\t\n",
			r.System, median(seconds), slices.Min(seconds), slices.Max(seconds),
			known("%.2f", median(seconds)/base, base > 0),
			r.median(func(m measurement) float64 { return m.UpstreamRatio }),
			r.median(func(m measurement) float64 { return float64(m.Connections) }),
			known("%.2f", r.median(func(m measurement) float64 { return m.CPUSeconds }), r.System != baseline),
			known("%.0f", r.median(func(m measurement) float64 { return float64(m.PeakBytes) / (1 << 20) }), r.System != baseline),
		)
	}
	return w.Flush()
}

// baseline is the median of the baseline's seconds, 0 if it was not measured.
func (t table) baseline() float64 {
	for _, r := range t.Rows {
		if r.System == baseline {
			return r.median(func(m measurement) float64 { return m.Seconds })
		}
	}
	return 0
}

// known formats a number, or says that there is none.
func known(format string, number float64, ok bool) string {
	if !ok {
		return "-"
	}
	return fmt.Sprintf(format, number)
}

func (r row) values(of func(measurement) float64) []float64 {
	var values []float64
	for _, m := range r.Measurements {
		values = append(values, of(m))
	}
	return values
}

func (r row) median(of func(measurement) float64) float64 { return median(r.values(of)) }

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
