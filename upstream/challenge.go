package upstream

import (
	"slices"
	"strings"
)

const (
	// maxChallenges bounds what is read of a hostile header; two are common, four have been seen.
	maxChallenges = 16

	bearer = "bearer"
	basic  = "basic"
)

// challenge is how an endpoint wants to be asked. The zero value asks for nothing.
type challenge struct {
	scheme         string // bearer or basic
	realm, service string // of bearer alone
}

// choose returns the challenge to meet: Bearer before Basic, because a token opens one repository and a password all.
func choose(headers []string) challenge {
	offered := parseChallenges(headers)
	for _, c := range offered {
		if c.scheme == bearer && c.params["realm"] != "" {
			return challenge{scheme: bearer, realm: c.params["realm"], service: c.params["service"]}
		}
	}
	for _, c := range offered {
		if c.scheme == basic {
			return challenge{scheme: basic}
		}
	}
	return challenge{}
}

// offer is one challenge of a WWW-Authenticate header: its scheme and the names of its parameters are in lower case.
type offer struct {
	scheme string
	params map[string]string
}

// parseChallenges reads the challenges of RFC 9110, section 11.6.1, from any number of header lines. The grammar uses
// commas both between challenges and between the parameters of one; a name is a parameter if "=" follows it, and the
// scheme of another challenge if not. What can't be read is skipped up to the next comma.
func parseChallenges(headers []string) []offer {
	var found []offer
	for _, header := range headers {
		var current *offer // parameters before any scheme belong to nobody
		s := scanner{rest: header}
		for s.skip(" \t,"); s.rest != "" && len(found) < maxChallenges; s.skip(" \t,") {
			name := strings.ToLower(s.token())
			if name == "" {
				s.toComma()
				continue
			}
			value, ok := s.value()
			switch {
			case !ok:
				found = append(found, offer{scheme: name, params: map[string]string{}})
				current = &found[len(found)-1]
				s.token68()
			case current == nil:
			default:
				if _, given := current.params[name]; !given {
					current.params[name] = value
				}
			}
		}
	}
	return slices.Clip(found[:min(len(found), maxChallenges)])
}

// scanner holds what is left to read of a header.
type scanner struct{ rest string }

func (s *scanner) skip(set string) { s.rest = strings.TrimLeft(s.rest, set) }

// take reads what consists of characters that fit.
func (s *scanner) take(fits func(c byte) bool) string {
	n := 0
	for n < len(s.rest) && fits(s.rest[n]) {
		n++
	}
	taken := s.rest[:n]
	s.rest = s.rest[n:]
	return taken
}

func (s *scanner) token() string { return s.take(isTokenChar) }

// value reads a parameter's "=" and value. It reads nothing, and says so, if the name before it was no parameter's.
func (s *scanner) value() (string, bool) {
	after := scanner{rest: s.rest}
	after.skip(" \t")
	if !strings.HasPrefix(after.rest, "=") {
		return "", false
	}
	after.rest = after.rest[1:]
	after.skip(" \t")
	value := ""
	if strings.HasPrefix(after.rest, `"`) {
		value = after.quoted()
	} else {
		value = after.token()
	}
	s.rest = after.rest
	return value, true
}

// quoted reads a quoted string. One that does not end is worth nothing, as it may have lost anything.
func (s *scanner) quoted() string {
	var b strings.Builder
	for i := 1; i < len(s.rest); i++ {
		switch c := s.rest[i]; c {
		case '"':
			s.rest = s.rest[i+1:]
			return b.String()
		case '\\':
			if i++; i < len(s.rest) {
				b.WriteByte(s.rest[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	s.rest = ""
	return ""
}

// token68 skips the single value that some schemes (Negotiate) have instead of parameters, if there is one.
func (s *scanner) token68() {
	after := scanner{rest: s.rest}
	after.skip(" \t")
	after.take(func(c byte) bool { return isTokenChar(c) || c == '/' })
	after.take(func(c byte) bool { return c == '=' })
	after.skip(" \t")
	if after.rest == "" || after.rest[0] == ',' {
		s.rest = after.rest
	}
}

// toComma skips what can't be read, quoted strings as a whole.
func (s *scanner) toComma() {
	for s.rest != "" && s.rest[0] != ',' {
		if s.rest[0] == '"' {
			s.quoted()
		} else {
			s.rest = s.rest[1:]
		}
	}
}

func isTokenChar(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
