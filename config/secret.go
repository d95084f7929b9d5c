package config

import (
	"fmt"
	"io"
)

// hidden stands where a secret would.
const hidden = "[hidden]"

// Secret is a text that shows itself only to [Secret.Reveal]. Printing by any verb, marshalling, and printing or
// marshalling what contains it give "[hidden]", or "" for the zero Secret, which is none.
type Secret struct {
	// A pointer, because fmt calls no methods on what it finds in unexported fields: it would print a string there,
	// but prints only the address of this.
	text *string
}

// NewSecret returns text as a secret.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{text: &text}
}

// Reveal returns the secret itself.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s.text == nil }

// Equal reports whether two secrets are the same text.
func (s Secret) Equal(other Secret) bool { return s.Reveal() == other.Reveal() }

// String does not return the secret.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return hidden
}

// GoString does not return the secret.
func (s Secret) GoString() string { return fmt.Sprintf("config.Secret(%q)", s.String()) }

// Format prints no secret, whatever the verb: fmt would look inside for a verb that does not suit String.
func (s Secret) Format(f fmt.State, verb rune) {
	text := s.String()
	if verb == 'v' && f.Flag('#') {
		text = s.GoString()
	}
	_, _ = io.WriteString(f, text)
}

// MarshalText does not return the secret. JSON and YAML are written by it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes text as the secret, unless it is what stands in the place of one.
func (s *Secret) UnmarshalText(text []byte) error {
	if string(text) == hidden {
		return fmt.Errorf("this is the mark of config check, not a password; allowed: the password itself, or a password_file")
	}
	*s = NewSecret(string(text))
	return nil
}
