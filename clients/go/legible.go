package transparentllm

import (
	"strings"
	"time"
	"unicode"
)

// What is taken of the words of a server. More would be there to fill memories and terminals.
const (
	mostMessage = 4096 // characters
	mostEntries = 32   // of metadata
	mostKey     = 64
	mostValue   = 1024
	mostReason  = 64
	// longestDelay that a server can ask for.
	longestDelay = 24 * time.Hour
)

// legible is a text of a server's as it can be printed: so many characters at most, and none that a terminal obeys.
func legible(text string, most int) string {
	var made strings.Builder
	count := 0
	for _, sign := range text { // a byte that is no UTF-8 is a U+FFFD already
		if count++; count > most {
			made.WriteString("...")
			break
		}
		if isObeyed(sign) {
			sign = unicode.ReplacementChar
		}
		made.WriteRune(sign)
	}
	return made.String()
}

// isObeyed tells whether a terminal does something else than show the character: controls, and what turns the direction
// of writing.
func isObeyed(sign rune) bool {
	return (unicode.IsControl(sign) && sign != '\n' && sign != '\t') || unicode.Is(unicode.Bidi_Control, sign)
}

func legibleMetadata(metadata map[string]string) map[string]string {
	made := map[string]string{}
	for key, value := range metadata {
		if len(made) == mostEntries {
			break
		}
		if len(key) <= mostKey {
			made[legible(key, mostKey)] = legible(value, mostValue)
		}
	}
	return made
}

// isReason tells whether a text is a constant as those of errors.proto.
func isReason(text string) bool {
	for i := 0; i < len(text); i++ {
		if sign := text[i]; (sign < 'A' || sign > 'Z') && (sign < '0' || sign > '9') && sign != '_' {
			return false
		}
	}
	return len(text) > 0 && len(text) <= mostReason
}
