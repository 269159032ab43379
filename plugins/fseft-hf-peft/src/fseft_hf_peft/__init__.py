"""The tuners of Hugging Face PEFT as methods of fseft."""
