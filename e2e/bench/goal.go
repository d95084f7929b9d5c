package main

import (
	"fmt"
	"math"
)

// metric is something that is measured, by the name it has in the table.
type metric string

// The metrics. All but rates, ratios and counts have their unit in the name.
const (
	duration        metric = "seconds"
	throughput      metric = "GB/s"
	cpu             metric = "CPU s"
	cpuPerRequest   metric = "CPU µs/request"
	cpuPerGB        metric = "CPU s/GB"
	peak            metric = "peak MiB"
	resident        metric = "resident MiB"
	ready           metric = "ready s"
	firstByte       metric = "first byte ms"
	firstRange      metric = "first range ms"
	upstreamShare   metric = "upstream/asked"
	upstreamAsked   metric = "upstream requests"
	upstreamGets    metric = "upstream GETs"
	connections     metric = "connections"
	requestsLater   metric = "after ttl"
	manifestMedian  metric = "manifest p50 µs"
	manifestSlowest metric = "manifest p99 µs"
	headMedian      metric = "HEAD p50 µs"
	headSlowest     metric = "HEAD p99 µs"
	ofEmpty         metric = "p99 of empty's"
	ofIdle          metric = "p99 of idle's"
	ofLimit         metric = "of limit"
	evicted         metric = "evicted"
	evictedRate     metric = "evicted/s"
)

// values are one measurement.
type values map[metric]float64

// goal is what a system should be at a workload.
type goal struct {
	System string `json:"system"`
	Metric metric `json:"metric"`
	// Bound is the most that Metric may be, or the least if Least is set; a factor of what system Of has if that is given.
	Bound float64 `json:"bound"`
	Least bool    `json:"least,omitempty"`
	Of    string  `json:"of,omitempty"`
	// Or is a number that is good enough too, whatever Of has.
	Or float64 `json:"or,omitempty"`
}

// most and least are entrepot's own goals; of and for_ make them relative, or another system's.
func most(m metric, bound float64) goal { return goal{System: mirror, Metric: m, Bound: bound} }
func least(m metric, bound float64) goal {
	return goal{System: mirror, Metric: m, Bound: bound, Least: true}
}

func (g goal) of(system string) goal { g.Of = system; return g }
func (g goal) or(bound float64) goal { g.Or = bound; return g }
func (g goal) by(system string) goal { g.System = system; return g }

// outcome is how a goal stands.
type outcome struct {
	// Known is whether all that it takes was measured.
	Known   bool    `json:"known"`
	Reached bool    `json:"reached"`
	Value   float64 `json:"value"`
	// Base is what system Of has, 1 if there is none.
	Base float64 `json:"base"`
}

// judge compares medians. The value is told with three digits, and so that is how it is compared.
func (g goal) judge(median func(system string, m metric) (float64, bool)) outcome {
	o := outcome{Base: 1}
	var based bool
	o.Value, o.Known = median(g.System, g.Metric)
	if g.Of == "" {
		based = true
	} else {
		o.Base, based = median(g.Of, g.Metric)
	}
	goodEnough := o.Known && g.Or != 0 && within(o.Value, g.Or, g.Least)
	o.Known = o.Known && (based && o.Base != 0 || goodEnough)
	o.Reached = o.Known && (goodEnough || within(o.Value/o.Base, g.Bound, g.Least))
	return o
}

func within(value, bound float64, least bool) bool {
	if least {
		return value >= bound
	}
	return value <= bound
}

// String says what is to be.
func (g goal) String() string {
	text := fmt.Sprintf("%s: %s %s %v", g.System, g.Metric, map[bool]string{false: "≤", true: "≥"}[g.Least], g.Bound)
	if g.Of != "" {
		text += " × " + g.Of
	}
	if g.Or != 0 {
		text += fmt.Sprintf(", or %v", g.Or)
	}
	return text
}

// describe says what is.
func (g goal) describe(o outcome) string {
	if !o.Known {
		return "not measured"
	}
	text := spell(o.Value)
	if g.Of != "" && o.Base != 0 {
		text = fmt.Sprintf("%s × (%s of %s)", spell(o.Value/o.Base), spell(o.Value), spell(o.Base))
	}
	if o.Reached {
		return text + ", reached"
	}
	return text + ", NOT reached"
}

// spell writes a number with three digits, more if it is large.
func spell(v float64) string {
	switch digits := math.Abs(v); {
	case v == math.Trunc(v) || digits >= 100:
		return fmt.Sprintf("%.0f", v)
	case digits >= 10:
		return fmt.Sprintf("%.1f", v)
	case digits >= 1:
		return fmt.Sprintf("%.2f", v)
	case digits >= 0.01:
		return fmt.Sprintf("%.3f", v)
	}
	return fmt.Sprintf("%.2g", v)
}
