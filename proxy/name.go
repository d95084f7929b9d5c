package proxy

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
)

// maxName is the longest repository name, in bytes. The specification leaves it open and says that many clients allow 255
// for the registry's host and the name together.
const maxName = 255

// validName reports whether s is a repository name: distribution-spec 1.1, "Pulling manifests":
//
//	[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
func validName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i := 0; i < len(s); {
		start := i
		for i < len(s) && alphanumeric(s[i]) {
			i++
		}
		if i == start {
			return false // a component, or what follows a separator, begins with a letter or digit
		}
		if i == len(s) {
			return true
		}
		i += separator(s[i:])
	}
	return false // it ends with a separator
}

func alphanumeric(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// separator is the length of the separator that s begins with. Something else has the length 0, and the next component
// then begins with what is no letter or digit.
func separator(s string) int {
	switch s[0] {
	case '/', '.':
		return 1
	case '_':
		if len(s) > 1 && s[1] == '_' {
			return 2
		}
		return 1
	case '-':
		n := 1
		for n < len(s) && s[n] == '-' {
			n++
		}
		return n
	}
	return 0
}

// validTag reports whether s is a tag: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func validTag(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !alphanumeric(c) && (c < 'A' || c > 'Z') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// parseDigest takes the digests that the specification registers: sha256 and sha512, in lower-case hexadecimal.
func parseDigest(s string) (digest.Digest, error) {
	algorithm, encoded, _ := strings.Cut(s, ":")
	if length := digestLength[algorithm]; length == 0 || len(encoded) != length || !hexadecimal(encoded) {
		return "", &apiError{status: 400, code: codeDigestInvalid,
			message: fmt.Sprintf("%.100q is no digest: sha256: or sha512: and as many hexadecimal digits as it takes", s)}
	}
	return digest.Digest(s), nil
}

// digestLength is how many hexadecimal digits a digest has.
var digestLength = map[string]int{"sha256": 64, "sha512": 128}

func hexadecimal(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// parseReference takes a tag or a digest. By a name that can be neither, no manifest can be had: it is unknown, which is
// what clients, and the conformance suite, expect of a name that they made up.
func parseReference(s string) (cache.Reference, error) {
	if validTag(s) {
		return cache.Reference{Tag: s}, nil
	}
	for i := range len(s) {
		if s[i] == ':' {
			d, err := parseDigest(s)
			return cache.Reference{Digest: d}, err
		}
	}
	return cache.Reference{}, &apiError{status: 404, code: codeManifestUnknown,
		message: fmt.Sprintf("there is no manifest %.100q, which is no tag: up to 128 letters, digits, '_', '.' and '-', not beginning with '.' or '-'", s)}
}
