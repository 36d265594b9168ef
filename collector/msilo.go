package collector

// msiloModule is stored instant messages (msilo/msilo.c).
var msiloModule = Module{
	Subsystem: "msilo",
	Summary:   "Instant messages stored for offline users",
	Queries: []Query{statistics("msilo",
		Metric{Field: "msilo:stored_messages", Name: "stored_messages_total", Kind: counter, Help: "Messages stored."},
		Metric{Field: "msilo:dumped_messages", Name: "delivered_messages_total", Kind: counter, Help: "Stored messages delivered."},
		Metric{Field: "msilo:failed_messages", Name: "failed_messages_total", Kind: counter, Help: "Stored messages that could not be delivered."},
		Metric{Field: "msilo:dumped_reminders", Name: "delivered_reminders_total", Kind: counter, Help: "Reminders delivered."},
		Metric{Field: "msilo:failed_reminders", Name: "failed_reminders_total", Kind: counter, Help: "Reminders that could not be delivered."},
	)},
}

// kafkaModule is messages sent to Kafka (Kamailio 6 and later, kafka/kafka_mod.c).
var kafkaModule = Module{
	Subsystem: "kafka",
	Summary:   "Messages sent to Kafka",
	Queries: []Query{statistics("kafka",
		Metric{Field: "kafka:total_messages", Name: "messages_total", Kind: counter, Help: "Messages sent to Kafka."},
		Metric{Field: "kafka:total_messages_err", Name: "message_errors_total", Kind: counter, Help: "Messages that could not be sent to Kafka."},
	)},
}
