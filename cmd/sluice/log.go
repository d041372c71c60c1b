package main

import (
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"sluice/configs"
)

// newLogger logs to stderr: lines for people (console) or JSON for machines.
func newLogger(c *configs.Log) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(c.Level)
	if err != nil {
		return nil, err
	}
	z := zap.NewProductionConfig()
	z.Level = zap.NewAtomicLevelAt(level)
	z.Encoding = c.Format
	z.DisableStacktrace, z.DisableCaller = true, true
	z.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	z.EncoderConfig.EncodeDuration = zapcore.StringDurationEncoder
	if c.Format == "console" {
		z.EncoderConfig.EncodeLevel = zapcore.CapitalLevelEncoder
	}
	z.Sampling = nil
	return z.Build()
}
