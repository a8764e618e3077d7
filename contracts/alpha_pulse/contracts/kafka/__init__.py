"""What readers need of Kafka (the extra `kafka`): `read`, connections, the topics' creation.

Nothing here changes aiokafka for the rest of the process.
"""
