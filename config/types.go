package config

import (
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Size is a number of bytes, never negative. Its text is a number with a unit: GiB, MiB, KiB and so on are powers of
// 1024; GB, MB, kB powers of 1000.
type Size int64

// UnmarshalText parses a size such as 200GiB or 1.5TB. Only 0 may go without a unit.
func (s *Size) UnmarshalText(text []byte) error {
	n, err := parseBytes(string(text))
	if err != nil {
		return fmt.Errorf("%s; allowed: a size such as 200GiB or 500MB", err)
	}
	*s = Size(n)
	return nil
}

// MarshalText returns String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// units are in the order of preference where two give numbers of the same length.
var units = []struct {
	name  string
	bytes int64
}{
	{"EiB", 1 << 60}, {"PiB", 1 << 50}, {"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"EB", 1e18}, {"PB", 1e15}, {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3},
}

// String returns the size exactly, in the unit that gives the smallest whole number.
func (s Size) String() string {
	if s == 0 {
		return "0"
	}
	number, unit := int64(s), "B"
	for _, u := range units {
		if int64(s)%u.bytes == 0 && int64(s)/u.bytes < number {
			number, unit = int64(s)/u.bytes, u.name
		}
	}
	return strconv.FormatInt(number, 10) + unit
}

// parseBytes parses a size. It is stricter than humanize: a unit is required, so that 200 is not 200 bytes by mistake,
// and a comma is refused, because 1,5GiB would be read as 15.
func parseBytes(text string) (int64, error) {
	if text == "0" {
		return 0, nil
	}
	n, err := humanize.ParseBytes(text)
	switch {
	case err != nil && strings.HasPrefix(err.Error(), "too large"), err == nil && n > math.MaxInt64:
		return 0, fmt.Errorf("%s is too large", quote(text))
	case err != nil || strings.ContainsRune(text, ','):
		return 0, fmt.Errorf("%s is not a size", quote(text))
	case strings.TrimRight(text, "0123456789. ") == "":
		return 0, fmt.Errorf("%s has no unit", quote(text))
	case n == 0 && strings.ContainsAny(text, "123456789"):
		return 0, fmt.Errorf("%s is less than one byte", quote(text))
	}
	return int64(n), nil
}

// Space is an amount of disk: so many bytes, or a percentage of the file system. The zero Space is none; of the two
// fields at most one is not zero.
type Space struct {
	Bytes   int64
	Percent float64 // 0 < Percent <= 100
}

// UnmarshalText parses a size such as 200GiB or a percentage such as 5%.
func (s *Space) UnmarshalText(text []byte) error {
	const allowed = "allowed: a size such as 200GiB, or a percentage above 0% up to 100%"
	if number, ok := strings.CutSuffix(string(text), "%"); ok {
		percent, err := strconv.ParseFloat(number, 64)
		if err != nil || !(percent > 0 && percent <= 100) {
			return fmt.Errorf("%s is not a percentage of a disk; %s", quote(string(text)), allowed)
		}
		*s = Space{Percent: percent}
		return nil
	}
	n, err := parseBytes(string(text))
	if err != nil {
		return fmt.Errorf("%s; %s", err, allowed)
	}
	*s = Space{Bytes: n}
	return nil
}

// MarshalText returns String.
func (s Space) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String returns the space as UnmarshalText reads it.
func (s Space) String() string {
	if s.Percent != 0 {
		return strconv.FormatFloat(s.Percent, 'f', -1, 64) + "%"
	}
	return Size(s.Bytes).String()
}

// IsZero reports whether the space is none.
func (s Space) IsZero() bool { return s == Space{} }

// Duration is a length of time, never negative. Its text is Go's, with d for days in front: 7d, 1d12h, 90s.
type Duration time.Duration

// UnmarshalText parses a duration.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := parseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%s %s; allowed: a duration such as 90s, 1h30m or 7d", quote(string(text)), err)
	}
	*d = Duration(parsed)
	return nil
}

const day = 24 * time.Hour

func parseDuration(text string) (time.Duration, error) {
	notADuration := fmt.Errorf("is not a duration")
	number, rest, hasDays := strings.Cut(text, "d")
	if !hasDays {
		d, err := time.ParseDuration(text)
		switch {
		case err != nil:
			return 0, notADuration
		case d < 0:
			return 0, fmt.Errorf("is negative")
		}
		return d, nil
	}
	if number == "" || strings.Trim(number, "0123456789.") != "" || strings.HasPrefix(rest, "+") {
		return 0, notADuration
	}
	days, err := strconv.ParseFloat(number, 64)
	switch {
	case err != nil:
		return 0, notADuration
	case days*float64(day) >= math.MaxInt64:
		return 0, fmt.Errorf("is too long")
	}
	d := time.Duration(days * float64(day))
	if rest == "" {
		return d, nil
	}
	more, err := time.ParseDuration(rest)
	switch {
	case err != nil || more < 0:
		return 0, notADuration
	case d+more < 0:
		return 0, fmt.Errorf("is too long")
	}
	return d + more, nil
}

// MarshalText returns String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String returns the duration with days, and without units that are zero: 7d, 1h30m, 1m.
func (d Duration) String() string {
	days, rest := time.Duration(d)/day, time.Duration(d)%day
	text := rest.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	switch {
	case days == 0:
		return text
	case rest == 0:
		return fmt.Sprintf("%dd", days)
	}
	return fmt.Sprintf("%dd%s", days, text)
}

// Rate is a bandwidth in bytes per second, never negative; 0 is unlimited.
type Rate int64

// UnmarshalText parses a rate in bits, whose units are decimal (200Mbit/s), or in bytes (20MB/s, 20MiB/s). The unit is
// required and its B a capital: Mb/s means bits to some and bytes to others. "unlimited" and 0 mean no limit.
func (r *Rate) UnmarshalText(text []byte) error {
	const allowed = "allowed: bits as in 200Mbit/s, bytes as in 20MB/s or 20MiB/s, or unlimited"
	whole := string(text)
	if whole == "0" || whole == "unlimited" {
		*r = 0
		return nil
	}
	number, perSecond := strings.CutSuffix(whole, "/s")
	number, bits := strings.CutSuffix(number, "bit")
	if !perSecond || bits && strings.HasSuffix(number, "i") || !bits && !strings.HasSuffix(number, "B") {
		return fmt.Errorf("%s is not a rate; %s", quote(whole), allowed)
	}
	divisor := int64(1)
	if bits {
		number, divisor = number+"B", 8
	}
	n, err := parseBytes(number)
	switch {
	case err != nil:
		return fmt.Errorf("%s is not a rate; %s", quote(whole), allowed)
	case n > 0 && n < divisor:
		return fmt.Errorf("%s is less than one byte a second; %s", quote(whole), allowed)
	}
	*r = Rate(n / divisor)
	return nil
}

// MarshalText returns String.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// String returns the rate exactly, in bytes per second.
func (r Rate) String() string {
	if r == 0 {
		return "unlimited"
	}
	return Size(r).String() + "/s"
}

// Count is a whole number of things, 1 or more. The zero Count is one that was not given.
type Count int

// UnmarshalText parses a count in decimal digits. 0 is refused: it could mean none, no limit or the default. So is a
// leading 0, which means octal to YAML 1.1.
func (c *Count) UnmarshalText(text []byte) error {
	const allowed = "allowed: a whole number from 1, such as 6"
	digits := string(text)
	if strings.Trim(digits, "0123456789") != "" || strings.HasPrefix(digits, "0") || digits == "" {
		return fmt.Errorf("%s is not a count; %s", quote(digits), allowed)
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil {
		return fmt.Errorf("%s is too large; %s", quote(digits), allowed)
	}
	*c = Count(n)
	return nil
}

// URL is the address of an endpoint: http or https, a host, perhaps a port and a path, and nothing else. Its host is in
// lower case, and neither /v2 nor a slash is at its end.
type URL string

// UnmarshalText parses a URL. What may hold a secret is not repeated in the error.
func (u *URL) UnmarshalText(text []byte) error {
	raw := string(text)
	var problem string
	parsed, err := url.Parse(raw)
	switch {
	case strings.ContainsAny(raw, "?#"):
		return fmt.Errorf("the URL has a query or a fragment; allowed: http or https, host, port and path")
	case strings.Contains(raw, "@"):
		return fmt.Errorf("the URL has a user name (an @) in it; allowed: http or https, host, port and path; " +
			"credentials have keys of their own")
	case err != nil || parsed.RawPath != "" && parsed.RawPath != parsed.EscapedPath():
		problem = "is not a URL"
	case parsed.Scheme != "http" && parsed.Scheme != "https":
		problem = "is not an http or https URL"
	case !validHost(strings.ToLower(parsed.Host)):
		problem = "has no valid host"
	case strings.HasSuffix(strings.TrimRight(parsed.Path, "/"), "/v2"):
		problem = "ends in /v2, which is added to it: leave /v2 out"
	default:
		path := strings.TrimRight(parsed.EscapedPath(), "/")
		*u = URL(parsed.Scheme + "://" + strings.ToLower(parsed.Host) + path)
		return nil
	}
	return fmt.Errorf("%s %s; allowed: a URL such as https://registry.example:5000/path", quote(raw), problem)
}

// MarshalText returns String.
func (u URL) MarshalText() ([]byte, error) { return []byte(u), nil }

// String returns the URL.
func (u URL) String() string { return string(u) }

var hostForm = regexp.MustCompile(`^(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*` +
	`|\[([0-9a-f:.]+)\])(?::([0-9]{1,5}))?$`)

// validHost reports whether host is of the form host[:port], in lower case.
func validHost(host string) bool {
	m := hostForm.FindStringSubmatch(host)
	if m == nil {
		return false
	}
	if address := m[1]; address != "" {
		if ip, err := netip.ParseAddr(address); err != nil || !ip.Is6() {
			return false
		}
	}
	if port := m[2]; port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		return err == nil && n > 0
	}
	return true
}

// Level is the least severe level that is logged: debug, info, warn or error.
type Level string

// UnmarshalText accepts the four levels.
func (l *Level) UnmarshalText(text []byte) error {
	return oneOf(l, string(text), "debug", "info", "warn", "error")
}

// Format is how a log line is written: auto, console or json.
type Format string

// UnmarshalText accepts the three formats.
func (f *Format) UnmarshalText(text []byte) error {
	return oneOf(f, string(text), "auto", "console", "json")
}

// FillMode is how much of a blob is fetched for whoever asks for a part of it: auto or whole.
type FillMode string

// UnmarshalText accepts the two modes.
func (m *FillMode) UnmarshalText(text []byte) error {
	return oneOf(m, string(text), "auto", "whole")
}

// Abandonment is what becomes of a transfer that nobody wants any more: finish or park.
type Abandonment string

// UnmarshalText accepts the two ends.
func (a *Abandonment) UnmarshalText(text []byte) error {
	return oneOf(a, string(text), "finish", "park")
}

// Preference is what comes first of several endpoints: order, the one listed first, or speed, the fastest.
type Preference string

// UnmarshalText accepts the two preferences.
func (p *Preference) UnmarshalText(text []byte) error {
	return oneOf(p, string(text), "order", "speed")
}

// ReadAhead is how much is fetched before a client asks for it, each including the one before: off, manifests, config or
// layers.
type ReadAhead string

// UnmarshalText accepts the four.
func (a *ReadAhead) UnmarshalText(text []byte) error {
	return oneOf(a, string(text), "off", "manifests", "config", "layers")
}

func oneOf[T ~string](to *T, text string, allowed ...T) error {
	if !slices.Contains(allowed, T(text)) {
		return fmt.Errorf("%s is unknown; allowed: %s", quote(text), list(allowed))
	}
	*to = T(text)
	return nil
}
