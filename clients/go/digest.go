package transparentllm

// isDigest tells whether a text is a SHA-256 in hex. It names what is kept, and perhaps files: a server that says
// anything else is not believed.
func isDigest(text string) bool {
	if len(text) != 64 {
		return false
	}
	for i := 0; i < len(text); i++ {
		if (text[i] < '0' || text[i] > '9') && (text[i] < 'a' || text[i] > 'f') {
			return false
		}
	}
	return true
}
