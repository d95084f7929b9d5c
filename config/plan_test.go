package config

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestPlanText(t *testing.T) {
	for in, want := range map[string]string{
		"unlimited":  "unlimited",
		"0":          "unlimited",
		"200Mbit/s":  "25MB/s",
		" 1.5 MB/s ": "1500kB/s",
		"mon-fri 08:00-18:00 20Mbit/s, sat 10:00-14:00 50Mbit/s, else 100Mbit/s": "mon-fri 08:00-18:00 2500kB/s, sat 10:00-14:00 6250kB/s, else 12500kB/s",
		"22:00-06:00 unlimited,else 1MB/s":                                       "22:00-06:00 unlimited, else 1MB/s",
		"Sat-Sun 1MB/s, ELSE unlimited":                                          "sat-sun 1MB/s, else unlimited",
		"mon-sun 20:00-00:00 1MB/s, else 2MB/s":                                  "20:00-24:00 1MB/s, else 2MB/s",
		"tue-mon 1MB/s, else 2MB/s":                                              "mon-sun 1MB/s, else 2MB/s",
		"fri-mon 00:00-24:00 8 bit/s, else 0":                                    "fri-mon 1B/s, else unlimited",
	} {
		var p, again Plan
		if err := p.UnmarshalText([]byte(in)); err != nil || p.String() != want {
			t.Errorf("%q: %q, %v; want %q", in, p, err, want)
		}
		if err := again.UnmarshalText([]byte(p.String())); err != nil || !again.Equal(p) {
			t.Errorf("%q, read again: %q, %v", in, again, err)
		}
	}
	const hours = "; allowed: hours and minutes of two digits each, from 00:00 to 24:00, such as 08:00-18:00"
	const days = "; allowed: mon, tue, wed, thu, fri, sat, sun, or several in a row such as mon-fri"
	const rate = "; allowed: bits as in 200Mbit/s, bytes as in 20MB/s or 20MiB/s, or unlimited"
	for in, want := range map[string]string{
		"":                                      `"" is not a rate` + rate,
		"20":                                    `"20" is not a rate` + rate,
		"mon 20":                                `says nothing of all other times: end it with else and a rate, or with else unlimited; ` + planAllowed,
		"mon 20, else 1MB/s":                    `"20" is not a rate` + rate,
		"mon-fri 08:00-18:00 20Mbit/s":          `says nothing of all other times: end it with else and a rate, or with else unlimited; ` + planAllowed,
		"mon 1MB/s, tue 2MB/s":                  `says nothing of all other times: end it with else and a rate, or with else unlimited; ` + planAllowed,
		"mon 1MB/s, 2MB/s":                      `has no else before its last rate; ` + planAllowed,
		"else 2MB/s":                            `has nothing before its else; ` + planAllowed,
		"else 2MB/s, 1MB/s":                     `has a part without days and hours before its last, "else 2MB/s"; ` + planAllowed,
		"1MB/s, else 2MB/s":                     `has a part without days and hours before its last, "1MB/s"; ` + planAllowed,
		"mon 1MB/s,, else 2MB/s":                `has a part without days and hours before its last, ""; ` + planAllowed,
		"mon 1MB/s, else":                       `"" is not a rate` + rate,
		"mon 1MB/s, else tue 2MB/s":             `says nothing of all other times: end it with else and a rate, or with else unlimited; ` + planAllowed,
		"08:00-08:00 1MB/s, else 2MB/s":         `"08:00-08:00" is not hours: they end as they begin` + hours,
		"08:00-25:00 1MB/s, else 2MB/s":         `"08:00-25:00" is not hours: "25:00" is no time of day` + hours,
		"24:00-06:00 1MB/s, else 2MB/s":         `"24:00-06:00" is not hours: 24:00 is the end of a day, 00:00 the beginning` + hours,
		"8:00-18:00 1MB/s, else 2MB/s":          `"8:00-18:00" is not hours: "8:00" is no time of day` + hours,
		"08:60-18:00 1MB/s, else 2MB/s":         `"08:60-18:00" is not hours: "08:60" is no time of day` + hours,
		"mon-fri,sat 08:00-18:00 1MB/s":         `"mon-fri" has no rate; ` + planAllowed,
		"08:00-18:00 mon 1MB/s, else 2MB/s":     `"mon" comes too late: a part has days, then hours, then a rate; ` + planAllowed,
		"mon-fri 8-18 1MB/s, else 2MB/s":        `"8-18" is not hours: "8" is no time of day` + hours,
		"8-18 1MB/s":                            `"8-18" is not hours: "8" is no time of day` + hours,
		"mon-frx 08:00-18:00 1MB/s, else 0":     `"mon-frx" is not days: "frx" is none` + days,
		"sat 1MB/s, Mon-frx 1MB/s, else 0":      `"mon-frx" is not days: "frx" is none` + days,
		"08:00 1MB/s, else 0":                   `"08:00" is not hours: it has no end` + hours,
		"mon 1MB/s, else 08:00-25:00 1MB/s":     `"08:00-25:00" is not hours: "25:00" is no time of day` + hours,
		"08:00-12:00 13:00-18:00 1MB/s, else 0": `"13:00-18:00" comes too late: a part has days, then hours, then a rate; ` + planAllowed,
		"08:00-18:00":                           `"08:00-18:00" has no rate; ` + planAllowed,
		"unlimitd":                              `"unlimitd" is not a rate` + rate,
		"08:00-18:00 -5MB/s, else 0":            `"-5MB/s" is not a rate` + rate,
		strings.Repeat("mon 1MB/s,", 200):       `has more than 169 parts; ` + planAllowed,
		"monday-friday 1MB/s, else unlimited":   `"monday-friday" is not days: "monday" is none` + days,
	} {
		var p Plan
		if err := p.UnmarshalText([]byte(in)); err == nil || !strings.HasSuffix(err.Error(), want) || !p.IsZero() {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
	}
}

// TestPlanHolds goes through a plan from change to change.
func TestPlanHolds(t *testing.T) {
	const layout = "Mon 2006-01-02 15:04 MST"
	for _, tt := range []struct {
		name, zone, plan, from string
		want                   []string // rate and until; "-" is never
	}{
		{"a rate", "UTC", "1MB/s", "2026-11-21T12:00:00Z", []string{"1MB/s -"}},
		{"office hours", "UTC", "mon-fri 08:00-18:00 1MB/s, sat 10:00-14:00 2MB/s, else 3MB/s", "2026-11-20T17:59:59Z", []string{
			"1MB/s Fri 2026-11-20 18:00 UTC", "3MB/s Sat 2026-11-21 10:00 UTC", "2MB/s Sat 2026-11-21 14:00 UTC",
			"3MB/s Mon 2026-11-23 08:00 UTC", "1MB/s Mon 2026-11-23 18:00 UTC"}},
		{"over midnight, of the day on which it begins", "UTC", "fri 22:00-06:00 1MB/s, else 3MB/s", "2026-11-20T00:00:00Z", []string{
			"3MB/s Fri 2026-11-20 22:00 UTC", "1MB/s Sat 2026-11-21 06:00 UTC", "3MB/s Fri 2026-11-27 22:00 UTC"}},
		{"over midnight, seen from within", "UTC", "fri 22:00-06:00 1MB/s, else 3MB/s", "2026-11-21T05:59:59.999999999Z", []string{
			"1MB/s Sat 2026-11-21 06:00 UTC"}},
		{"the first that holds", "UTC", "sat 12:00-13:00 1MB/s, sat 2MB/s, else 3MB/s", "2026-11-21T00:00:00Z", []string{
			"2MB/s Sat 2026-11-21 12:00 UTC", "1MB/s Sat 2026-11-21 13:00 UTC", "2MB/s Sun 2026-11-22 00:00 UTC", "3MB/s Sat 2026-11-28 00:00 UTC"}},
		{"no other rate at any time", "UTC", "mon 08:00-09:00 1MB/s, else 1MB/s", "2026-11-21T00:00:00Z", []string{"1MB/s -"}},
		{"all week", "UTC", "mon-sun 1MB/s, else 2MB/s", "2026-11-21T00:00:00Z", []string{"1MB/s -"}},
		{"hours of the zone", "America/New_York", "08:00-18:00 1MB/s, else 3MB/s", "2026-11-20T12:00:00Z", []string{
			"3MB/s Fri 2026-11-20 08:00 EST", "1MB/s Fri 2026-11-20 18:00 EST"}},
		{"the clock is put forward", "Europe/Berlin", "01:00-04:00 1MB/s, else 3MB/s", "2026-03-28T23:00:00Z", []string{
			"3MB/s Sun 2026-03-29 01:00 CET", "1MB/s Sun 2026-03-29 04:00 CEST", "3MB/s Mon 2026-03-30 01:00 CEST"}},
		{"the clock is put forward over a window", "Europe/Berlin", "02:10-02:50 1MB/s, else 3MB/s", "2026-03-28T12:00:00Z", []string{
			"3MB/s Mon 2026-03-30 02:10 CEST"}},
		{"over the weekly one", "Europe/Berlin", "sun 02:10-02:50 1MB/s, else 3MB/s", "2026-03-28T12:00:00Z", []string{
			"3MB/s Sun 2026-04-05 02:10 CEST"}},
		{"the clock is put forward into a window", "America/New_York", "02:30-04:00 1MB/s, else 3MB/s", "2026-03-08T05:00:00Z", []string{
			"3MB/s Sun 2026-03-08 03:00 EDT", "1MB/s Sun 2026-03-08 04:00 EDT"}},
		{"the clock is put back", "Europe/Berlin", "01:00-04:00 1MB/s, else 3MB/s", "2026-10-24T22:00:00Z", []string{
			"3MB/s Sun 2026-10-25 01:00 CEST", "1MB/s Sun 2026-10-25 04:00 CET"}},
		{"the clock is put back over a window", "America/New_York", "01:10-01:50 1MB/s, else 3MB/s", "2026-11-01T04:00:00Z", []string{
			"3MB/s Sun 2026-11-01 01:10 EDT", "1MB/s Sun 2026-11-01 01:50 EDT",
			"3MB/s Sun 2026-11-01 01:10 EST", "1MB/s Sun 2026-11-01 01:50 EST", "3MB/s Mon 2026-11-02 01:10 EST"}},
		{"the clock is put back out of a window", "Europe/Berlin", "02:30-05:00 1MB/s, else 3MB/s", "2026-10-25T00:00:00Z", []string{
			"3MB/s Sun 2026-10-25 02:30 CEST", "1MB/s Sun 2026-10-25 02:00 CET", "3MB/s Sun 2026-10-25 02:30 CET", "1MB/s Sun 2026-10-25 05:00 CET"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p Plan
			if err := p.UnmarshalText([]byte(tt.plan)); err != nil {
				t.Fatal(err)
			}
			p = p.In(Zone(tt.zone).Location())
			at, err := time.Parse(time.RFC3339Nano, tt.from)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				rate, until := p.At(at)
				got := rate.String() + " -"
				if !until.IsZero() {
					got = rate.String() + " " + until.Format(layout)
				}
				if got != want {
					t.Errorf("at %s: %s, want %s", at, got, want)
				}
				at = until
			}
		})
	}
}

func TestZone(t *testing.T) {
	parses(t, "Europe/Berlin", Zone("Europe/Berlin"), "Europe/Berlin")
	parses(t, "UTC", Zone("UTC"), "UTC")
	for _, in := range []string{"", "Berlin", "../UTC", "CEST"} {
		refuses[Zone](t, in, fmt.Sprintf("%q is not a time zone; allowed: a name such as Europe/Berlin or UTC, or to leave the key out for the machine's", in))
	}
	if zone := Zone("").Location(); zone != time.Local {
		t.Errorf("the zone of none is %s", zone)
	}
}

// FuzzPlan asserts that what is read is written so that it is read as the same, that time goes forward from change to change, and that
// the rate is the same just before a change as at the time that it was told of, and another after it.
func FuzzPlan(f *testing.F) {
	for _, plan := range []string{"1MB/s", "mon-fri 08:00-18:00 20Mbit/s, else unlimited", "fri-mon 22:00-06:00 1MB/s, 02:30-03:00 2MB/s, else 3MB/s"} {
		f.Add(plan, int64(1_774_740_000), "Europe/Berlin")
		f.Add(plan, int64(1_793_509_200), "America/New_York")
		f.Add(plan, int64(-1), "Australia/Lord_Howe")
	}
	f.Fuzz(func(t *testing.T, text string, unix int64, zone string) {
		var p, again Plan
		if p.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(p.String())); err != nil || !again.Equal(p) {
			t.Fatalf("%q, written %q, read again %q, %v", text, p, again, err)
		}
		p = p.In(Zone(zone).Location())
		at := time.Unix(unix%(1<<34), 0)
		for range 5 {
			rate, until := p.At(at)
			if until.IsZero() {
				return
			}
			before, _ := p.At(until.Add(-time.Nanosecond))
			after, _ := p.At(until)
			if !until.After(at) || before != rate || after == rate || until.Sub(at) > planHorizon+day {
				t.Fatalf("%q at %s: %s until %s, %s before that, %s after", p, at, rate, until, before, after)
			}
			at = until
		}
	})
}
