package testbed

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Metrics are the samples of a scrape, by the name of their series with its labels.
type Metrics map[string]float64

// Metrics scrapes it.
func (e *Entrepot) Metrics(ctx context.Context) (Metrics, error) { return Scrape(ctx, e.Admin) }

// Scrape reads the metrics at the address of an admin listener.
func Scrape(ctx context.Context, admin string) (Metrics, error) {
	resp, err := ask(ctx, admin, "/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	m := Metrics{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		series, value, ok := strings.Cut(lines.Text(), "} ")
		if ok {
			series += "}"
		} else {
			series, value, ok = strings.Cut(lines.Text(), " ")
		}
		if !ok || strings.HasPrefix(series, "#") {
			continue
		}
		if m[series], err = strconv.ParseFloat(value, 64); err != nil {
			return nil, fmt.Errorf("/metrics: %q: %w", lines.Text(), err)
		}
	}
	return m, lines.Err()
}

// Of returns the samples of one metric, by their labels in the way of the scrape, such as {damage="size"}.
func (m Metrics) Of(name string) Metrics {
	some := Metrics{}
	for series, v := range m {
		if labels, ok := strings.CutPrefix(series, name); ok && (labels == "" || labels[0] == '{') {
			some[labels] = v
		}
	}
	return some
}

// Sum is that of all samples.
func (m Metrics) Sum() float64 {
	var sum float64
	for _, v := range m {
		sum += v
	}
	return sum
}

// Readiness is what it says of itself at /readyz; it is an error if it is not ready.
func (e *Entrepot) Readiness(ctx context.Context) (string, error) {
	resp, err := ask(ctx, e.Admin, "/readyz")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// ask asks an admin listener. The caller closes the body.
func ask(ctx context.Context, admin, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err == nil && resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		err = fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return resp, err
}
