"""What is wrong with a domain's data: counted (`findings`), and cleaned if asked (`clean`)."""
