"""What is generated from the Structs: JSON Schemas, the AsyncAPI document, example messages.

`json_schema` writes them, `compatibility` compares a new version of them with the released one.
"""
