package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // containers seldom have the time zones
)

// Plan is a bandwidth that may be another at other hours of the week. The zero Plan is unlimited at all times.
//
// Hours are those of the clock on the wall: what begins at 02:30 does not begin in the night in which the clock is put
// forward over that, and it begins twice, if it ends before, in the one in which the clock is put back.
type Plan struct {
	windows []window
	other   Rate           // outside of all windows
	zone    *time.Location // nil: the machine's
}

// window is a part of the week that has a rate of its own.
type window struct {
	first, last time.Weekday  // both included; a week may be turned over between them
	from, to    time.Duration // since midnight; what ends before it begins ends on the next day
	rate        Rate
}

// maxWindows bounds a plan: more than one for each hour of the week is nobody's schedule.
const maxWindows = 7 * 24

const planAllowed = "allowed: a rate such as 20MB/s or 200Mbit/s, or rates by days and hours, such as mon-fri 08:00-18:00 20Mbit/s, " +
	"sat 10:00-14:00 50Mbit/s, else 100Mbit/s"

// UnmarshalText parses a rate, or rates by days and hours: parts with commas between them, each of days (mon, or mon-fri), hours
// (08:00-18:00), both or none of them, and a rate. The first part that holds decides. The last one has "else" before its rate.
func (p *Plan) UnmarshalText(text []byte) error {
	fail := func(problem string) error { return fmt.Errorf("%s %s; %s", quote(string(text)), problem, planAllowed) }
	parts := strings.Split(string(text), ",")
	if len(parts) > maxWindows+1 {
		return fail(fmt.Sprintf("has more than %d parts", maxWindows+1))
	}
	read := Plan{zone: p.zone}
	for _, part := range parts[:len(parts)-1] {
		w, rest, bounded, err := cutWindow(part)
		switch {
		case err != nil:
			return err
		case !bounded:
			return fail("has a part without days and hours before its last, " + quote(strings.TrimSpace(part)))
		}
		if err := w.rate.UnmarshalText([]byte(rest)); err != nil {
			return err
		}
		read.windows = append(read.windows, w)
	}
	others, isElse := cutElse(parts[len(parts)-1])
	_, _, bounded, err := cutWindow(others)
	switch {
	case err != nil:
		return err
	case bounded:
		return fail("says nothing of all other times: end it with else and a rate, or with else unlimited")
	case isElse && len(read.windows) == 0:
		return fail("has nothing before its else")
	case !isElse && len(read.windows) > 0:
		return fail("has no else before its last rate")
	}
	if err := read.other.UnmarshalText([]byte(others)); err != nil {
		return err
	}
	*p = read
	return nil
}

// cutElse returns what follows the else of a plan's last part.
func cutElse(part string) (rest string, isElse bool) {
	part = strings.TrimSpace(part)
	if first, rest, _ := strings.Cut(part, " "); strings.EqualFold(first, "else") {
		return strings.TrimSpace(rest), true
	}
	return part, false
}

// cutWindow parses the days and hours at the beginning of a part and returns what follows them. Bounded is whether there are any.
func cutWindow(part string) (w window, rest string, bounded bool, err error) {
	words := strings.Fields(part)
	w = window{first: time.Monday, last: time.Sunday, to: day}
	if len(words) > 1 {
		if first, last, err := parseDays(words[0]); err == nil {
			w.first, w.last, words, bounded = first, last, words[1:], true
		}
	}
	if len(words) > 1 {
		if from, to, err := parseHours(words[0]); err == nil {
			w.from, w.to, words, bounded = from, to, words[1:], true
		}
	}
	return w, strings.Join(words, " "), bounded, misread(words)
}

// misread says what is wrong with days or hours that were not taken as such. Words are what is left of a part: they should be a rate, or
// begin with else.
func misread(words []string) error {
	if len(words) == 0 {
		return nil
	}
	word, parsed := strings.ToLower(words[0]), error(nil)
	switch {
	case strings.Trim(word, "0123456789:-") == "" && strings.ContainsAny(word, ":-"):
		_, _, parsed = parseHours(word)
	case strings.Trim(word, "abcdefghijklmnopqrstuvwxyz-") == "" && word != "else" && word != "unlimited":
		_, _, parsed = parseDays(word)
	default:
		return nil
	}
	switch {
	case len(words) == 1 && parsed == nil:
		return fmt.Errorf("%s has no rate; %s", quote(word), planAllowed)
	case parsed == nil:
		return fmt.Errorf("%s comes too late: a part has days, then hours, then a rate; %s", quote(word), planAllowed)
	case len(words) == 1:
		return nil // it stands where a rate does
	}
	return parsed
}

var weekdays = map[string]time.Weekday{
	"mon": time.Monday, "tue": time.Tuesday, "wed": time.Wednesday, "thu": time.Thursday,
	"fri": time.Friday, "sat": time.Saturday, "sun": time.Sunday,
}

// parseDays parses mon or mon-fri. All days are from Monday on.
func parseDays(text string) (first, last time.Weekday, err error) {
	from, to, isRange := strings.Cut(strings.ToLower(text), "-")
	if !isRange {
		to = from
	}
	for _, name := range []string{from, to} {
		if _, ok := weekdays[name]; !ok {
			return 0, 0, fmt.Errorf("%s is not days: %s is none; allowed: mon, tue, wed, thu, fri, sat, sun, or several in a row such as mon-fri",
				quote(text), quote(name))
		}
	}
	first, last = weekdays[from], weekdays[to]
	if (last+1)%7 == first {
		first, last = time.Monday, time.Sunday
	}
	return first, last, nil
}

// parseHours parses 08:00-18:00. An end at midnight is one at 24:00.
func parseHours(text string) (from, to time.Duration, err error) {
	fail := func(problem string) (time.Duration, time.Duration, error) {
		return 0, 0, fmt.Errorf("%s is not hours: %s; allowed: hours and minutes of two digits each, from 00:00 to 24:00, such as 08:00-18:00",
			quote(text), problem)
	}
	begin, end, isRange := strings.Cut(text, "-")
	from, fromOK := parseClock(begin)
	to, toOK := parseClock(end)
	switch {
	case !fromOK:
		return fail(quote(begin) + " is no time of day")
	case !isRange:
		return fail("it has no end")
	case !toOK:
		return fail(quote(end) + " is no time of day")
	case from == day:
		return fail("24:00 is the end of a day, 00:00 the beginning")
	case from == to && from > 0:
		return fail("they end as they begin")
	case to == 0:
		to = day
	}
	return from, to, nil
}

// parseClock parses 00:00 to 24:00, both digits of each.
func parseClock(text string) (time.Duration, bool) {
	hour, minute, _ := strings.Cut(text, ":")
	if len(hour) != 2 || len(minute) != 2 {
		return 0, false
	}
	h, errHour := strconv.ParseUint(hour, 10, 8)
	m, errMinute := strconv.ParseUint(minute, 10, 8)
	at := time.Duration(h)*time.Hour + time.Duration(m)*time.Minute
	return at, errHour == nil && errMinute == nil && m < 60 && at <= day
}

// MarshalText returns String.
func (p Plan) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// String returns the plan as UnmarshalText reads it.
func (p Plan) String() string {
	var b strings.Builder
	for _, w := range p.windows {
		b.WriteString(w.String() + ", ")
	}
	if len(p.windows) > 0 {
		b.WriteString("else ")
	}
	return b.String() + p.other.String()
}

func (w window) String() string {
	name := func(d time.Weekday) string { return strings.ToLower(d.String()[:3]) }
	clock := func(d time.Duration) string { return fmt.Sprintf("%02d:%02d", int(d.Hours()), int(d.Minutes())%60) }
	days := name(w.first)
	if w.first != w.last {
		days += "-" + name(w.last)
	}
	if w.from == 0 && w.to == day {
		return days + " " + w.rate.String()
	}
	hours := clock(w.from) + "-" + clock(w.to) + " " + w.rate.String()
	if (w.last+1)%7 == w.first {
		return hours
	}
	return days + " " + hours
}

// IsZero reports whether the plan is unlimited at all times.
func (p Plan) IsZero() bool { return len(p.windows) == 0 && p.other == 0 }

// Equal reports whether two plans are the same by text and zone.
func (p Plan) Equal(other Plan) bool {
	return p.String() == other.String() && p.location().String() == other.location().String()
}

// In returns the plan with its hours in a zone.
func (p Plan) In(zone *time.Location) Plan {
	p.zone = zone
	return p
}

func (p Plan) location() *time.Location {
	if p.zone == nil {
		return time.Local
	}
	return p.zone
}

// planHorizon is how far ahead a change is looked for: a week, and another because the clock may be put forward over a window.
const planHorizon = 15 * day

// At returns the rate at a time, and when there will be another; the zero time is never.
func (p Plan) At(t time.Time) (rate Rate, until time.Time) {
	if len(p.windows) == 0 {
		return p.other, time.Time{}
	}
	at := t.Round(0).In(p.location()) // without the monotonic clock, which knows nothing of the one on the wall
	rate = p.rateAt(at)
	for end := at.Add(planHorizon); at.Before(end); {
		if at = p.after(at); p.rateAt(at) != rate {
			return rate, at
		}
	}
	return rate, time.Time{}
}

// after returns the next time after t at which a window may begin or end: it does so by the clock on the wall, which is as long as
// the zone keeps its offset as far from there as it says; and each change of the offset, which is before that or not.
func (p Plan) after(t time.Time) time.Time {
	now := sinceMidnight(t)
	next := day
	for _, w := range p.windows {
		for _, bound := range []time.Duration{w.from, w.to} {
			if bound > now {
				next = min(next, bound)
			}
		}
	}
	at := t.Add(next - now)
	if _, change := t.ZoneBounds(); change.After(t) && change.Before(at) {
		return change
	}
	return at
}

func (p Plan) rateAt(t time.Time) Rate {
	for _, w := range p.windows {
		if w.holds(t.Weekday(), sinceMidnight(t)) {
			return w.rate
		}
	}
	return p.other
}

// holds reports whether the window is open on a day at a time since midnight. One that goes over midnight belongs to the day on
// which it begins.
func (w window) holds(day time.Weekday, now time.Duration) bool {
	if w.from < w.to {
		return w.on(day) && w.from <= now && now < w.to
	}
	return w.on(day) && w.from <= now || w.on((day+6)%7) && now < w.to
}

func (w window) on(day time.Weekday) bool { return (day-w.first+7)%7 <= (w.last-w.first+7)%7 }

// sinceMidnight is what the clock on the wall shows.
func sinceMidnight(t time.Time) time.Duration {
	h, m, s := t.Clock()
	return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(s)*time.Second + time.Duration(t.Nanosecond())
}

// Zone is the name of a time zone, such as Europe/Berlin or UTC. The empty one is the machine's.
type Zone string

// UnmarshalText accepts the names that the zone database has.
func (z *Zone) UnmarshalText(text []byte) error {
	if _, err := time.LoadLocation(string(text)); err != nil || len(text) == 0 {
		return fmt.Errorf("%s is not a time zone; allowed: a name such as Europe/Berlin or UTC, or to leave the key out for the machine's",
			quote(string(text)))
	}
	*z = Zone(text)
	return nil
}

// Location returns the zone; a name that is none, which only who makes a Zone by hand can have, means the machine's.
func (z Zone) Location() *time.Location {
	if zone, err := time.LoadLocation(string(z)); err == nil && z != "" {
		return zone
	}
	return time.Local
}
