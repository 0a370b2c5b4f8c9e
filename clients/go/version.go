package transparentllm

// Version of this client; it is told to servers as the user agent.
const Version = "0.1.0"
