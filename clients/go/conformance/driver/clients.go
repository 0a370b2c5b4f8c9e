package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	transparentllm "transparentllm.dev/go"
)

type connectOptions struct {
	Model    string   `json:"model"`
	TimeoutS *float64 `json:"timeout_s"`
	Rerun    *bool    `json:"rerun"`
	Token    string   `json:"token"`
	TLSCA    string   `json:"tls_ca"`
	TLSCert  string   `json:"tls_cert"`
	TLSKey   string   `json:"tls_key"`
	MaxBytes *int64   `json:"max_bytes"`
	// Targets are several servers, instead of the one.
	Targets    []string `json:"targets"`
	ReconnectS *float64 `json:"reconnect_s"`
	// CacheBytes is 0 for drivers, so that what the server is sent can be counted.
	CacheBytes int64 `json:"cache_bytes"`
}

func connect(asked *request) (any, error) {
	options, err := asked.Options.dial()
	if err != nil {
		return nil, err
	}
	targets := asked.Options.Targets
	if targets == nil {
		targets = []string{asked.Target}
	}
	made, err := transparentllm.DialAll(targets, options...)
	if err != nil {
		return nil, err
	}
	asked.clients[asked.LLM] = made
	return fields{}, nil
}

func (o connectOptions) dial() ([]transparentllm.Option, error) {
	timeout := 60 * time.Second
	if o.TimeoutS != nil {
		timeout = seconds(*o.TimeoutS)
	}
	made := []transparentllm.Option{transparentllm.WithTimeout(timeout), transparentllm.WithModel(o.Model),
		transparentllm.WithToken(o.Token), transparentllm.WithCacheBytes(o.CacheBytes)}
	if o.Rerun != nil && !*o.Rerun {
		made = append(made, transparentllm.WithoutRerun())
	}
	if o.ReconnectS != nil {
		made = append(made, transparentllm.WithReconnect(seconds(*o.ReconnectS)))
	}
	if o.MaxBytes != nil {
		made = append(made, transparentllm.WithMaxBytes(*o.MaxBytes))
	}
	if o.TLSCA == "" {
		return made, nil
	}
	security, err := o.security()
	return append(made, transparentllm.WithTLS(security)), err
}

func (o connectOptions) security() (*tls.Config, error) {
	authority, err := os.ReadFile(o.TLSCA)
	if err != nil {
		return nil, err
	}
	made := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	if !made.RootCAs.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("%s has no certificates", o.TLSCA)
	}
	if o.TLSCert == "" {
		return made, nil
	}
	certificate, err := tls.LoadX509KeyPair(o.TLSCert, o.TLSKey)
	made.Certificates = []tls.Certificate{certificate}
	return made, err
}

func copyClient(asked *request) (any, error) {
	llm, err := asked.client()
	if err != nil {
		return nil, err
	}
	asked.clients[asked.To] = llm.Copy()
	return fields{}, nil
}

func closeClient(asked *request) (any, error) {
	llm, err := asked.client()
	if err != nil {
		return nil, err
	}
	delete(asked.clients, asked.LLM)
	return fields{}, llm.Close()
}

func (r *request) client() (*transparentllm.Client, error) {
	if llm, ok := r.clients[r.LLM]; ok {
		return llm, nil
	}
	return nil, fmt.Errorf("no client object %q", r.LLM)
}

func seconds(number float64) time.Duration {
	return time.Duration(number * float64(time.Second))
}
